"""`fixed`: sigma itself is given."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Score
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Fields, Numbers, SigmaRule


class Fixed(SigmaRule):
    """Whatever the latents."""

    fields: ClassVar[Fields] = {"value": None}

    def find(self, z: NDArray[np.floating], given: Numbers, score: Score, seed: int) -> tuple[float, dict[str, float]]:
        """The value."""
        return given["value"], {}

    def sentence(self, numbers: Numbers) -> str:
        """Where it is from."""
        return "fixed in the settings"


SIGMA_RULES.add("fixed", Fixed())
