"""What latents are drawn from to sample images: N(0, I), a Gaussian mixture, or the latents' kernel density.

Sample n is a function of (seed, n) alone, whatever the batch or the worker: with words of Philox-4x64-10, key
(seed, TAG) and counter n S for S = ceil((d + 1) / 4) steps of four words (Salmon et al. 2011),

    u[k] = ((word[k] >> 12) + 1/2) 2**-52,    eps[k] = Phi^-1(u[k + 1]) for k < d,

so that u[0] chooses the mixture's component or the density's latent, and eps is the noise. It is computed in float64
and rounded once; products are taken row by row, since a matrix product's last bits would hang on the batch.

The mixture is scikit-learn's maximum-likelihood fit (EM). It takes no weights of the samples: where A's latents weigh
by LDS, `resampled_rows` draws as many of them, each as often as it weighs.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from scipy.special import ndtri

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import validate_latents

Floats = NDArray[np.float64]
Covariance = Literal["auto", "full", "diag"]

REGULARISED = 1e-4  # of the latents' mean variance, added to every variance of a mixture
TAG, _RESAMPLE = (int.from_bytes(name, "big") for name in (b"sample", b"resample"))  # second words of the keys


class Prior(Protocol):
    """A distribution of latents."""

    @property
    def dim(self) -> int:
        """d, the latent's dimension."""

    def sample(self, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        """Samples start..stop-1 of a seed, float32[stop - start, d]. ConfigError for an impossible range or seed."""


@dataclass(frozen=True)
class Normal:
    """N(0, I)."""

    dim: int

    def sample(self, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        """As `Prior.sample`."""
        return _noise(self.dim, start, stop, seed)[1].astype(np.float32)


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
        """As `Prior.sample`."""
        u, noise = _noise(self.dim, start, stop, seed)
        chosen = _chosen(self.weights, u)
        if self.factors.ndim == 2:
            return np.asarray(self.means[chosen] + self.factors[chosen] * noise, np.float32)
        out = np.empty(noise.shape, np.float32)
        for row, (c, eps) in enumerate(zip(chosen, noise, strict=True)):
            out[row] = self.means[c] + np.einsum("ij,j->i", self.factors[c], eps)
        return out

    def save(self, location: Location) -> None:
        """Write it as safetensors, atomically."""
        arrays = {"weights": self.weights, "means": self.means, "factors": self.factors}
        location.write_bytes(save_safetensors(arrays, {"ldsaug": json.dumps({"converged": self.converged})}))

    @classmethod
    def load(cls, location: Location) -> Mixture:
        """Read what `save` wrote. Raises InputError for another file."""
        data = location.read_bytes()
        try:
            arrays = load_safetensors(data)
            head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            noted = json.loads(head["__metadata__"]["ldsaug"])
            weights, means, factors = (arrays[name] for name in ("weights", "means", "factors"))
            fits = means.shape == (len(weights), means.shape[1]) and factors.shape in (
                means.shape,
                (*means.shape, means.shape[1]),
            )
            if not fits or not all(np.isfinite(a).all() for a in (weights, means, factors)):
                raise ValueError("arrays that do not fit, or are not finite")
            return cls(weights, means, factors, bool(noted["converged"]))
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as e:
            raise InputError(f"{location.uri}: not a mixture that ldsaug_ray wrote ({e}); delete it") from None


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
        """As `Prior.sample`."""
        u, noise = _noise(self.dim, start, stop, seed)
        chosen = (u * len(self.latents)).astype(np.int64)  # u <= 1 - 2**-53, so the rounded product stays below N
        return np.asarray(self.latents[chosen] + self.sigma * noise, np.float32)


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


def kernel_density(latents: ArrayLike, sigma: float) -> KernelDensity:
    """Kernel density of latents float[N, d] with Gaussian kernels of standard deviation sigma in each dimension.

    Raises InputError for invalid latents, ConfigError for a sigma that is negative or not finite.
    """
    z = validate_latents(latents, name="the latents of the prior")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"sample.sigma must be a finite number, at least 0; found {sigma}")
    return KernelDensity(z, sigma)


def resampled_rows(weights: ArrayLike, seed: int) -> NDArray[np.int64]:
    """M of M rows in proportion to their weights float[M], int64[M] ascending: systematic resampling (Kitagawa 1996).

    Row k comes floor or ceil of M w_k / sum(w) times, in the mean exactly as often. Raises InputError for weights that
    are negative, not finite, or all zero.
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 1 or not np.isfinite(w).all() or (w < 0).any() or (len(w) and not w.any()):
        raise InputError("weights must be finite numbers [M], at least 0 and not all 0")
    if not len(w):
        return np.empty(0, np.int64)
    word = np.random.Philox(key=np.array([seed, _RESAMPLE], np.uint64)).random_raw(1)
    return _chosen(w / w.sum(), (np.arange(len(w)) + _uniform(word)) / len(w))


def _noise(d: int, start: int, stop: int, seed: int) -> tuple[Floats, Floats]:
    """u[0] and eps of samples start..stop-1, float64[m] and [m, d]."""
    if not 0 <= start <= stop:
        raise ConfigError(f"a range of samples needs 0 <= start <= stop; found {start}..{stop}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be within 0..2**64-1; found {seed}")
    steps = -(-(d + 1) // 4)
    source = np.random.Philox(key=np.array([seed, TAG], np.uint64)).advance(start * steps)
    u = _uniform(source.random_raw(4 * steps * (stop - start))).reshape(stop - start, 4 * steps)
    return u[:, 0], ndtri(u[:, 1 : d + 1])


def _uniform(words: Any) -> Any:
    """Numbers strictly between 0 and 1, exact: the middles of 2**52 equal parts."""
    return ((np.asarray(words) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _chosen(probabilities: Floats, u: Floats) -> NDArray[np.int64]:
    """Index of the part of 0..1 in which each u lies, int64[m]."""
    edges = np.cumsum(probabilities)
    found = np.searchsorted(edges, u * edges[-1], side="right")
    return np.minimum(found, int(np.flatnonzero(probabilities)[-1])).astype(np.int64)
