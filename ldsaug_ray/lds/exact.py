"""The Latent Density Score, exactly: LDS(z) = 1/N sum_k exp(-||z - z_k||^2 / 2 sigma^2) over all N training latents.

Scores are natural logarithms in float64 and leave here finite for any bandwidth: exp() them only to print them.
The sums themselves are `_kernel`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import _kernel
from ldsaug_ray.lds.latents import LARGEST, check_pairs, check_rows, squared_gaps, validate_latents

Array = NDArray[np.float64]

BACKENDS = ("exact",)
# Beyond these an exponent of float32 latents could overflow float64
SMALLEST_SIGMA, LARGEST_SIGMA, LARGEST_ALPHA = 1e-100, 1e100, 1e6


@dataclass(frozen=True)
class PairScores:
    """What is known of each candidate; float64 arrays of one shape, [P, A, S] (pairs, alphas, sigmas) or [U, V, A, S].

    With w_k = exp(-||z - z_k||^2 / 2 sigma^2), i and j the candidate's own parents:

    log_lds                    log(1/N sum over all k of w_k); finite, at most 0
    log_lds_excluding_parents  log(1/N sum over k not in {i, j} of w_k): over N too, so that
                               exp(log_lds) = exp(log_lds_excluding_parents) + (w_i + w_j) / N; -inf only when N = 2
    parent_share               (w_i + w_j) / sum of all w_k, 0..1
    effective_neighbours       (sum w_k)^2 / sum w_k^2 over all k, 1..N
    """

    log_lds: Array
    log_lds_excluding_parents: Array
    parent_share: Array
    effective_neighbours: Array


def score_pairs(
    train: ArrayLike,
    pairs: ArrayLike,
    alphas: Sequence[float] | Array,
    sigmas: Sequence[float] | Array,
    *,
    backend: str = "exact",
    tile_rows: int = 1024,
    tile_latents: int = 4096,
) -> PairScores:
    """Score every alpha and sigma of every pair: arrays [P, A, S] (spec sections 1 and 5).

    train: float32[N, d], not changed or copied; pairs: int64[P, 2], i != j; alphas: any real numbers (outside 0..1 is
    extrapolation); sigmas: positive, in the latents' units. Memory is bounded by tile_rows x tile_latents and the
    answer; results do not depend on the tiles beyond rounding (about 1e-12).
    Raises InputError for invalid latents or pairs, ConfigError for the rest.
    """
    z = validate_latents(train)
    p = check_pairs(pairs, len(z))
    _check(backend, tile_rows, tile_latents)
    return _score(
        _kernel.Centred(z),
        p,
        _numbers(alphas, "alphas", LARGEST_ALPHA),
        _precisions(sigmas),
        max(2, tile_rows),
        tile_latents,
    )


def score_block(
    train: ArrayLike,
    rows: ArrayLike,
    columns: ArrayLike,
    alphas: Sequence[float] | Array,
    sigmas: Sequence[float] | Array,
    *,
    backend: str = "exact",
    tile_rows: int = 1024,
    tile_latents: int = 4096,
) -> PairScores:
    """Score every pair (i of rows, j of columns): arrays [U, V, A, S]; the rest as `score_pairs`.

    rows: int64[U], columns: int64[V]; a latent in both would be paired with itself and is an InputError.
    """
    z = validate_latents(train)
    _check(backend, tile_rows, tile_latents)
    u, v = np.asarray(rows), np.asarray(columns)
    for index, name in ((u, "rows"), (v, "columns")):
        if index.ndim != 1:
            raise InputError(f"{name} must be 1-D; found shape {index.shape}")
        check_rows(index, len(z), name)
    common = np.intersect1d(u, v)
    if len(common):
        raise InputError(
            f"rows and columns share {len(common)} latents, first {common[0]}: a latent has no pair with itself"
        )
    a, precisions, centred = _numbers(alphas, "alphas", LARGEST_ALPHA), _precisions(sigmas), _kernel.Centred(z)
    shape = (len(u), len(v), len(a), len(precisions))
    out = PairScores(*(np.empty(shape) for _ in fields(PairScores)))
    side = max(1, tile_rows // 8)  # squares of the grid share their parents best: 2 x side parents for side^2 pairs
    for top in range(0, len(u), side):
        for left in range(0, len(v), side):
            square = np.ix_(np.arange(top, min(top + side, len(u))), np.arange(left, min(left + side, len(v))))
            i, j = np.broadcast_arrays(u[square[0]], v[square[1]])
            grid = np.stack([i.ravel(), j.ravel()], axis=1).astype(np.int64)
            part = _score(centred, grid, a, precisions, max(2, tile_rows), tile_latents)
            for field in fields(PairScores):
                getattr(out, field.name)[square] = getattr(part, field.name).reshape(*i.shape, *shape[2:])
    return out


def score_points(
    train: ArrayLike,
    points: ArrayLike,
    sigmas: Sequence[float] | Array,
    *,
    backend: str = "exact",
    tile_rows: int = 1024,
    tile_latents: int = 4096,
) -> Array:
    """log LDS of any points, float64[M, S]; finite, at most 0 (spec section 1).

    train: float32[N, d]; points: float32[M, d]; sigmas: positive. A point that is itself a training latent counts
    itself. Raises InputError for invalid latents or points, ConfigError for the rest.
    """
    z, x = validate_latents(train), _points(points, train)
    _check(backend, tile_rows, tile_latents)
    least, total = _kernel.point_sums(_kernel.Centred(z), x, _precisions(sigmas), tile_rows, tile_latents)
    return _log_mean(least, total, len(z))


def score_gradient(
    train: ArrayLike, points: ArrayLike, sigma: float, *, tile_rows: int = 1024, tile_latents: int = 4096
) -> NDArray[np.float32]:
    """Gradient of log LDS at points, float32[M, d]: (sum_k w_k z_k - z) / sigma^2 with softmax weights w.

    sigma^2 times it is the mean-shift step, and the residual of the optimal denoiser of noise sigma on these latents
    (Vincent 2010). Raises as `score_points`, and InputError where a component exceeds float32 (sigma far too small).
    """
    z, x = validate_latents(train), _points(points, train)
    _check("exact", tile_rows, tile_latents)
    precision = float(_precisions([sigma])[0])
    out = np.empty(x.shape, np.float32)
    for part, shift in _kernel.mean_shift(_kernel.Centred(z), x, precision, tile_rows, tile_latents):
        gradient = shift * (2 * precision)
        if gradient.size and np.abs(gradient).max() > LARGEST:
            raise InputError(f"the gradient at sigma = {sigma:g} exceeds float32; use a larger sigma")
        out[part] = gradient
    return out


def _score(
    latents: _kernel.Centred, pairs: NDArray[np.int64], alphas: Array, precisions: Array, tile_rows: int, tile: int
) -> PairScores:
    n = len(latents.train)
    gaps = squared_gaps(latents.train, pairs)
    others = _kernel.pair_sums(latents, pairs, gaps, alphas, precisions, tile_rows, tile)
    # The candidate lies alpha ||z_i - z_j|| from z_i and (1 - alpha) ||z_i - z_j|| from z_j
    x_i = gaps[:, None, None] * (alphas**2)[:, None] * precisions
    x_j = gaps[:, None, None] * ((1 - alphas) ** 2)[:, None] * precisions
    near = np.minimum(x_i, x_j)
    far = np.exp(near - np.maximum(x_i, x_j))
    parents = _kernel.Sums(near, 1 + far, 1 + far**2)
    everyone = _kernel.merge(others, parents)
    return PairScores(
        log_lds=_log_mean(everyone.least, everyone.total, n),
        log_lds_excluding_parents=_log_mean(others.least, others.total, n),
        parent_share=np.minimum(parents.total * np.exp(everyone.least - near) / everyone.total, 1.0),
        effective_neighbours=np.clip(everyone.total**2 / everyone.squares, 1.0, n),
    )


def _log_mean(least: Array, total: Array, n: int) -> Array:
    """log(1/n sum of weights); -inf for no weights. Rounding must not push a mean of values <= 1 above 1."""
    log_total = np.log(total, out=np.zeros_like(total), where=total > 0)
    return np.minimum(log_total - np.log(n) - least, 0.0)


def _points(points: ArrayLike, train: ArrayLike) -> NDArray[np.floating]:
    x = np.asarray(points)
    d = np.shape(train)[1]
    if x.ndim != 2 or x.shape[1] != d:
        raise InputError(f"points must be [M, {d}] like the training latents; found shape {x.shape}")
    return validate_latents(x, name="the points") if len(x) else x


def _numbers(values: Sequence[float] | Array, name: str, largest: float) -> Array:
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ConfigError(f"{name} must be a list of at least one finite number; found {values!r}")
    if np.abs(x).max() > largest:
        raise ConfigError(f"{name} must be at most {largest:g} in size; found {values!r}")
    return x


def _precisions(sigmas: Sequence[float] | Array) -> Array:
    x = _numbers(sigmas, "sigmas", LARGEST_SIGMA)
    if (x < SMALLEST_SIGMA).any():
        raise ConfigError(f"every sigma must be positive (at least {SMALLEST_SIGMA:g}); found {x.min():g}")
    return 0.5 / x**2


def _check(backend: str, tile_rows: int, tile_latents: int) -> None:
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; possible: {', '.join(BACKENDS)}")
    if tile_rows < 1 or tile_latents < 1:
        raise ConfigError(f"tile_rows and tile_latents must be at least 1; found {tile_rows} and {tile_latents}")
