"""`norm_fraction`: a share of the latents' mean norm. The paper's rule: one fifth."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds.latents import row_blocks, validate_latents
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Fields, Numbers, SigmaRule

PAPER_SCALE = 0.2


class NormFraction(SigmaRule):
    """See `sigma_from_norm`."""

    fields: ClassVar[Fields] = {"scale": PAPER_SCALE}

    def find(self, z: NDArray[np.floating], given: Numbers, score: Score, seed: int) -> tuple[float, dict[str, float]]:
        """Numbers: scale, mean_norm."""
        scale = given["scale"]
        sigma = sigma_from_norm(z, scale)
        return sigma, {"scale": scale, "mean_norm": sigma / scale}

    def sentence(self, numbers: Numbers) -> str:
        """The share."""
        paper = ", the paper's rule" if numbers["scale"] == PAPER_SCALE else ""
        return f"{numbers['scale']:g} × the mean norm{paper}"


SIGMA_RULES.add("norm_fraction", NormFraction())


def sigma_from_norm(train: ArrayLike, scale: float = 0.2) -> float:
    """`scale` times the mean L2 norm of the latents [N, d], in float64 (the paper's sigma: one fifth of it).

    The norm is from the origin, not from the mean: a common offset of the latents changes it. Raises InputError when
    every latent is zero (or the latents are invalid), ConfigError unless scale is positive and finite.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise ConfigError(f"the scale of sigma must be positive and finite; found {scale}")
    z = validate_latents(train)
    total = 0.0
    for rows in row_blocks(*z.shape):
        block = z[rows].astype(np.float64)
        total += float(np.sqrt(np.einsum("nd,nd->n", block, block)).sum())
    sigma = scale * (total / len(z))
    if sigma == 0 or not math.isfinite(sigma):
        raise InputError(
            f"sigma = {scale:g} x mean norm of {len(z)} latents comes out as {sigma}: "
            "the latents are all zero (a collapsed encoder?); set score.sigma.rule: fixed and a value to go on"
        )
    return sigma
