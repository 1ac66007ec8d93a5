"""`norm_fraction`: a share of the latents' mean norm. The paper's rule: one fifth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds.findings import WHERE_LATENTS_COINCIDE
from ldsaug_ray.lds.latents import row_blocks, validate_latents
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Latents, Numbers, SigmaRule

PAPER_SCALE = 0.2


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
            f"the latents are all zero, and LDS would be 1 everywhere for any sigma; {WHERE_LATENTS_COINCIDE}"
        )
    return sigma


def _find(z: Latents, given: Numbers, score: Score, seed: int) -> tuple[float, Numbers]:
    sigma = sigma_from_norm(z, given["scale"])
    return sigma, {"scale": given["scale"], "mean_norm": sigma / given["scale"]}


def _sentence(numbers: Numbers) -> str:
    paper = ", the paper's rule" if numbers["scale"] == PAPER_SCALE else ""
    return f"{numbers['scale']:g} × the mean norm{paper}"


WORDS = "scale x mean L2 norm of the training latents (the paper's)"
SIGMA_RULES.add("norm_fraction", SigmaRule({"scale": PAPER_SCALE}, _find, _sentence, WORDS))
