"""N(0, I): what the training pulls the latents to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.models.priors.base import PRIORS, Fitted, Latents, Prior
from ldsaug_ray.models.priors.noise import noise


@dataclass(frozen=True)
class Normal:
    """N(0, I)."""

    dim: int

    def sample(self, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        """Samples start..stop-1 of a seed, float32[stop - start, d]. ConfigError for an impossible range or seed."""
        return noise(self.dim, start, stop, seed)[1].astype(np.float32)


class Standard(Prior):
    """Needs no latents."""

    title = "N(0, I)"
    words = "N(0, I)"
    reads: ClassVar = "nothing"

    def draw(self, fitted: Fitted, latents: Latents, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        return Normal(latents.shape[1]).sample(start, stop, seed)

    def sentence(self, facts: Mapping[str, Any], latents: str) -> str:
        return self.title


PRIORS.add("normal", Standard())
