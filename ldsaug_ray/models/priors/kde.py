"""The kernel density of the latents: one of them, + sigma x noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Sampling, Score, Sigma
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.lds import resolve_sigma, validate_latents
from ldsaug_ray.models.priors.base import PRIORS, Fitted, Latents, Prior
from ldsaug_ray.models.priors.noise import noise


@dataclass(frozen=True, eq=False)
class KernelDensity:
    """A latent chosen at random, all alike, + sigma eps: the density with Gaussian kernels of that width."""

    latents: NDArray[np.floating]  # [N, d]
    sigma: float

    @property
    def dim(self) -> int:
        """d."""
        return self.latents.shape[1]

    def sample(self, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        """Samples start..stop-1 of a seed, float32[stop - start, d]."""
        u, eps = noise(self.dim, start, stop, seed)
        chosen = (u * len(self.latents)).astype(np.int64)  # u <= 1 - 2**-53, so the rounded product stays below N
        return np.asarray(self.latents[chosen] + self.sigma * eps, np.float32)


def kernel_density(latents: ArrayLike, sigma: float) -> KernelDensity:
    """Kernel density of latents float[N, d] with Gaussian kernels of standard deviation sigma in each dimension.

    Raises InputError for invalid latents, ConfigError for a sigma that is negative or not finite.
    """
    z = validate_latents(latents, name="the latents of the prior")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"sample.sigma must be a finite number, at least 0; found {sigma}")
    return KernelDensity(z, sigma)


class Kernels(Prior):
    """Looks at the latents as it is drawn from, so that they need no copy of their own."""

    title = "the latents’ kernel density"
    words = "the kernel density of the training images' latents: one of them + sigma x noise"
    reads: ClassVar = "drawn"
    settings: ClassVar = ("sigma",)

    def fit(self, latents: Latents, settings: Sampling, seed: int, *, of_a: int = 0) -> Fitted:
        """sigma: a number, or the likeliest for real images' latents: A's lie so near their parents that they would
        shrink it."""
        if not isinstance(settings.sigma, str):
            return {"sigma": kernel_density(latents, settings.sigma).sigma}
        real = latents[: len(latents) - of_a]
        try:
            return {"sigma": resolve_sigma(real, Score(sigma=Sigma(rule=settings.sigma)), seed).sigma}
        except (ImpossibleError, InputError) as e:
            raise InputError(
                f"sample.sigma: leave_one_out finds none for these {len(real)} latents (they are all equal, or most "
                "have a duplicate); set sample.sigma to a number"
            ) from e

    def draw(self, fitted: Fitted, latents: Latents, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        return KernelDensity(latents, fitted["sigma"]).sample(start, stop, seed)

    def sentence(self, facts: Mapping[str, Any], latents: str) -> str:
        return f"the kernel density of {latents}, sigma = {facts['sigma']:.4g}"


PRIORS.add("kde", Kernels())
