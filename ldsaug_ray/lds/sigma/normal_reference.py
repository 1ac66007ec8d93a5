"""`scott` and `silverman`: the bandwidth that is best for a normal density, by the number of latents and dimensions.

sigma = s N^(-1/(d+4)) (Scott 1992) and s (N (d+2)/4)^(-1/(d+4)) (Silverman 1986), s the root mean variance of a
dimension. In one dimension they are SciPy's; scikit-learn's leave s out, and are these where s is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.lds.diagnostics import latent_norms
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Latents, Numbers, SigmaRule


def _rule(name: str, factor: Callable[[int, int], float]) -> SigmaRule:
    def find(z: Latents, given: Numbers, score: Score, seed: int) -> tuple[float, Numbers]:
        n, d = z.shape
        variance = float(np.sum(latent_norms(z) ** 2)) / max(1, n - 1) / d
        if variance == 0:
            raise ImpossibleError(f"score.sigma.rule: {name} comes out as 0: the latents do not vary; set it to fixed")
        spread = math.sqrt(variance)
        return factor(n, d) * spread, {"factor": factor(n, d), "spread": spread}

    def sentence(numbers: Numbers) -> str:
        return f"by {name.title()}’s rule, {numbers['factor']:.4g} × the standard deviation of a dimension"

    return SigmaRule({}, find, sentence, "best for a normal density")


SIGMA_RULES.add("scott", _rule("scott", lambda n, d: n ** (-1 / (d + 4))))
SIGMA_RULES.add("silverman", _rule("silverman", lambda n, d: (n * (d + 2) / 4) ** (-1 / (d + 4))))
