"""Random numbers of samples by their number: each a function of (seed, n) alone, whatever the batch or the worker.

With words of Philox-4x64-10, key (seed, TAG) and counter n S for S = ceil((d + 1) / 4) steps of four words (Salmon et
al. 2011),

    u[k] = ((word[k] >> 12) + 1/2) 2**-52,    eps[k] = Phi^-1(u[k + 1]) for k < d,

so that u[0] can choose a component or a latent, and eps is the noise. It is computed in float64 and rounded once;
products are taken row by row, since a matrix product's last bits would hang on the batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds.noise import uniform

Floats = NDArray[np.float64]

TAG, _RESAMPLE = (int.from_bytes(name, "big") for name in (b"sample", b"resample"))  # second words of the keys


def noise(d: int, start: int, stop: int, seed: int) -> tuple[Floats, Floats]:
    """u[0] and eps of samples start..stop-1, float64[m] and [m, d]: uniform between 0 and 1, and N(0, I).

    Raises ConfigError for an impossible range or seed.
    """
    if not 0 <= start <= stop:
        raise ConfigError(f"a range of samples needs 0 <= start <= stop; found {start}..{stop}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be within 0..2**64-1; found {seed}")
    steps = -(-(d + 1) // 4)
    source = np.random.Philox(key=np.array([seed, TAG], np.uint64)).advance(start * steps)
    u = uniform(source.random_raw(4 * steps * (stop - start))).reshape(stop - start, 4 * steps)
    return u[:, 0], ndtri(u[:, 1 : d + 1])


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
    return choose(w / w.sum(), (np.arange(len(w)) + uniform(word)) / len(w))


def choose(probabilities: Floats, u: Floats) -> NDArray[np.int64]:
    """Index of the part of 0..1 in which each u lies, int64[m]."""
    edges = np.cumsum(probabilities)
    found = np.searchsorted(edges, u * edges[-1], side="right")
    return np.minimum(found, int(np.flatnonzero(probabilities)[-1])).astype(np.int64)
