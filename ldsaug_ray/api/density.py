"""`LatentDensity`: the Latent Density Score as an estimator of scikit-learn's, beside its `KernelDensity`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ldsaug_ray.api.arguments import sigma_settings
from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError, InputError
from ldsaug_ray.lds import resolve_sigma, score_points

Array = NDArray[np.float64]


class LatentDensity(DensityMixin, BaseEstimator):
    """Density of points by Gaussian kernels on the latents that it was fitted to.

    LDS(x) = sum_k w_k exp(-||x - z_k||^2 / 2 sigma^2) / sum_k w_k, with w_k = 1 where no weights are given: at most 1.

    Args:
        sigma: bandwidth: a number, "norm/5" (the paper's: a fifth of the latents' mean norm), the name of a rule of
            `score.sigma.rule`, such as "scott", "silverman", "leave_one_out", "nearest_neighbour", or a mapping with
            its fields. Weights do not count for it.
        exclude_self: leave-one-out: a point that equals a latent is scored by the other latents alone. Of several
            equal latents one is left out.
        normalized: `score_samples` gives the log density, which integrates to 1 and can be compared between
            bandwidths, instead of log LDS: log LDS - d log sigma - d/2 log 2 pi. It is what `KernelDensity` gives.

    Attributes:
        sigma_: the bandwidth that was found. latents_: [N, d], those with a weight. sample_weight_: float64[N] or none.

    Latents in float32 are computed with in float32 (log LDS to 1e-4, usually 1e-6), others in float64.

    >>> import numpy as np
    >>> from sklearn.neighbors import KernelDensity
    >>> z = np.random.default_rng(0).normal(size=(100, 3))
    >>> density = LatentDensity(sigma=0.5, normalized=True).fit(z)
    >>> peer = KernelDensity(bandwidth=0.5).fit(z)
    >>> bool(np.allclose(density.score_samples(z), peer.score_samples(z)))
    True
    >>> LatentDensity(sigma="norm/5").fit(z).sample(2, random_state=0).shape
    (2, 3)
    """

    def __init__(self, sigma: Any = "norm/5", exclude_self: bool = False, normalized: bool = False) -> None:
        self.sigma = sigma
        self.exclude_self = exclude_self
        self.normalized = normalized

    def fit(self, Z: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> LatentDensity:
        """Take latents float[N, d] and find sigma. y: not looked at. sample_weight: float[N], at least 0, some above.

        Raises:
            ValueError: as every estimator of scikit-learn, for what is no array of finite numbers, and for weights.
            ConfigError: an impossible sigma. InputError, ImpossibleError: the latents do not determine one.
        """
        z = validate_data(self, Z, dtype=(np.float64, np.float32))
        self.sample_weight_ = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, z, dtype=np.float64, ensure_non_negative=True)
            z, self.sample_weight_ = z[weight > 0], weight[weight > 0]
        self.latents_ = z
        try:
            self.sigma_ = resolve_sigma(z, Score(sigma=sigma_settings(self.sigma))).sigma
        except (ImpossibleError, InputError) as e:
            if len(z) > 1:
                raise
            raise ValueError(f"sigma = {self.sigma!r} cannot be found from 1 sample: {e}") from e
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """log LDS of points float[M, d], or their log density where `normalized`: float64[M]."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        z, weight, sigma = self.latents_, self.sample_weight_, self.sigma_
        own = self._rows_of(x) if self.exclude_self else np.full(len(x), -1)
        counted = len(z) - (own >= 0)
        if not counted.all():
            raise InputError("exclude_self leaves no latent: LatentDensity was fitted to 1")
        change = np.zeros(len(x))
        if weight is not None:
            # a weight is height in one dimension more, exp(-h^2 / 2 sigma^2) = w / largest w: the engine needs none
            height = sigma * np.sqrt(2 * (np.log(weight.max()) - np.log(weight)))
            z, x = np.column_stack([z, height]), np.column_stack([x, np.zeros(len(x))])
            left = weight.sum() - np.where(own >= 0, weight[own], 0)
            change = np.log(counted) + np.log(weight.max()) - np.log(left)
        out = score_points(z, x, [sigma], leave_out=own, dtype=self.latents_.dtype)[:, 0] + change
        if self.normalized:
            d = self.n_features_in_
            out -= d * math.log(sigma) + d / 2 * math.log(2 * math.pi)
        return np.asarray(out)

    def _rows_of(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """The latent that each point equals, or -1."""
        z = self.latents_
        rows = {row.tobytes(): k for k, row in enumerate(z + 0.0)}  # -0.0 equals 0.0
        return np.array([rows.get(row.tobytes(), -1) for row in x.astype(z.dtype) + 0.0], np.int64)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Sum of `score_samples`. With `normalized` the log-likelihood, by which bandwidths can be compared."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> NDArray[np.floating]:
        """Draws from the density, [n, d]: a latent chosen by weight, plus sigma times standard normal noise."""
        check_is_fitted(self)
        rng, weight = check_random_state(random_state), self.sample_weight_
        share = None if weight is None else weight / weight.sum()
        z = self.latents_[rng.choice(len(self.latents_), n_samples, p=share)]
        return np.asarray(z + self.sigma_ * rng.standard_normal(z.shape), z.dtype)
