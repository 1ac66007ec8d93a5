"""The kernel's bandwidth sigma, one number for all latents."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ldsaug_ray.config.settings import Sigma
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds.latents import row_blocks, validate_latents


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


def resolve_sigma(train: ArrayLike, settings: Sigma) -> float:
    """The sigma that the settings ask for; see `sigma_from_norm` for the errors."""
    if settings.rule == "fixed":
        if settings.value is None:
            raise ConfigError("score.sigma.value is needed with score.sigma.rule: fixed")
        return settings.value
    return sigma_from_norm(train, settings.scale)
