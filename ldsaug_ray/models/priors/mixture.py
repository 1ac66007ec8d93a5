"""A Gaussian mixture fitted to the latents: scikit-learn's maximum-likelihood fit (EM)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Sampling
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import validate_latents
from ldsaug_ray.models.priors.base import PRIORS, Fitted, Latents, Prior
from ldsaug_ray.models.priors.noise import choose, noise

Floats = NDArray[np.float64]
Covariance = Literal["auto", "full", "diag"]

REGULARISED = 1e-4  # of the latents' mean variance, added to every variance of a mixture


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians: z = mean_c + factor_c eps, component c with probability weights[c]."""

    weights: Floats  # [K], sum 1
    means: Floats  # [K, d]
    factors: Floats  # [K, d, d] lower Cholesky factors of the covariances, or [K, d] standard deviations
    converged: bool

    @property
    def dim(self) -> int:
        """d."""
        return self.means.shape[1]

    @property
    def covariance(self) -> Literal["full", "diag"]:
        """Kind of the covariance matrices."""
        return "full" if self.factors.ndim == 3 else "diag"

    def sample(self, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        """Samples start..stop-1 of a seed, float32[stop - start, d]."""
        u, eps = noise(self.dim, start, stop, seed)
        chosen = choose(self.weights, u)
        if self.factors.ndim == 2:
            return np.asarray(self.means[chosen] + self.factors[chosen] * eps, np.float32)
        out = np.empty(eps.shape, np.float32)
        for row, (c, e) in enumerate(zip(chosen, eps, strict=True)):
            out[row] = self.means[c] + np.einsum("ij,j->i", self.factors[c], e)
        return out


def fit_mixture(latents: ArrayLike, components: int, covariance: Covariance, seed: int) -> Mixture:
    """Gaussian mixture fitted to latents float[N, d] by EM, started by k-means (scikit-learn's GaussianMixture).

    covariance auto is full where the parameters of `components` full matrices are at most N d, the number of values
    they are fitted to, else diagonal. REGULARISED times the mean variance is added to every variance. The same input
    and seed give the same mixture on a machine. `converged` says whether EM did within 200 steps.

    Raises InputError for invalid or all equal latents, or fewer different ones than components; ConfigError for
    fewer than one component.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    z = np.asarray(validate_latents(latents, name="the latents of the prior"), np.float64)
    n, d = z.shape
    if components < 1:
        raise ConfigError(f"sample.components must be at least 1; found {components}")
    if components > n:
        raise InputError(f"sample.components = {components} is more than the {n} latents; lower it")
    centre = z.mean(axis=0)
    spread = float(np.square(z - centre).mean())
    if spread == 0:
        raise InputError(f"all {n} latents are equal (a collapsed encoder?); no mixture can be fitted to them")
    if components > 1 and (different := len({hash(row.tobytes()) for row in z})) < components:
        raise InputError(f"sample.components = {components} is more than the {different} different latents; lower it")
    parameters = components * (1 + d + d * (d + 1) // 2) - 1
    kind = covariance if covariance != "auto" else "full" if parameters <= n * d else "diag"
    # In units of the spread: sklearn's tolerances are absolute
    scale = math.sqrt(spread)
    model: Any = GaussianMixture(
        components, covariance_type=kind, reg_covar=REGULARISED, max_iter=200, random_state=seed
    )
    # k-means adds up its threads' sums in the order they come; one thread has one order
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        model.fit((z - centre) / scale)
    covariances = np.asarray(model.covariances_, np.float64)
    factors = np.asarray(np.linalg.cholesky(covariances) if kind == "full" else np.sqrt(covariances), np.float64)
    means = centre + scale * np.asarray(model.means_, np.float64)
    return Mixture(np.asarray(model.weights_, np.float64), means, scale * factors, bool(model.converged_))


class Mixtures(Prior):
    """Its file holds weights, means and factors."""

    title = "a mixture fitted to the latents"
    words = "Gaussians fitted to the training images' latents"
    settings: ClassVar = ("components", "covariance")

    def fit(self, latents: Latents, settings: Sampling, seed: int, *, of_a: int = 0) -> Fitted:
        mixture = fit_mixture(latents, settings.components, settings.covariance, seed)
        arrays = {"weights": mixture.weights, "means": mixture.means, "factors": mixture.factors}
        facts = {"components": settings.components, "covariance": mixture.covariance, "converged": mixture.converged}
        return {**facts, **arrays}

    def draw(self, fitted: Fitted, latents: Latents, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        mixture = Mixture(*(fitted[name] for name in ("weights", "means", "factors", "converged")))
        return mixture.sample(start, stop, seed)

    def remark(self, facts: Mapping[str, Any]) -> str:
        return "" if facts["converged"] else "the mixture's fit has not converged; it is used as it is"

    def sentence(self, facts: Mapping[str, Any], latents: str) -> str:
        fit = "" if facts["converged"] else ", not converged"
        kind = f"{facts['covariance']} covariance{fit}"
        return f"a mixture of {facts['components']} Gaussians ({kind}) fitted to {latents}"


PRIORS.add("mixture", Mixtures())
