"""The Latent Density Score, exactly: LDS(z) = 1/N sum_k exp(-||z - z_k||^2 / 2 sigma^2) over all N training latents.

Scores are natural logarithms in float64 and leave here finite for any bandwidth: exp() them only to print them.
The sums themselves are `_kernel`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import _kernel
from ldsaug_ray.lds._shared import (
    LARGEST_ALPHA,
    TILE_LATENTS,
    TILE_ROWS,
    Array,
    Geometry,
    PairScores,
    check_settings,
    checked_numbers,
    checked_points,
    log_mean,
    precisions_of,
    with_parents,
)
from ldsaug_ray.lds.approximate import approximate_pairs, approximate_points
from ldsaug_ray.lds.index import Approximation, LatentIndex
from ldsaug_ray.lds.latents import LARGEST, check_pairs, check_rows, validate_latents


def score_pairs(
    train: ArrayLike,
    pairs: ArrayLike,
    alphas: Sequence[float] | Array,
    sigmas: Sequence[float] | Array,
    *,
    interpolation: Interpolation = "linear",
    backend: str = "exact",
    approximation: Approximation | None = None,
    index: LatentIndex | None = None,
    dtype: DTypeLike = np.float32,
    device: str = "cpu",
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> PairScores:
    """Score every alpha and sigma of every pair: arrays [P, A, S].

    train: float32[N, d], not changed or copied; pairs: int64[P, 2], i != j; alphas: any real numbers (outside 0..1 is
    extrapolation); sigmas: positive, in the latents' units; interpolation: see `interpolate`; dtype: of the arithmetic.
    float32 is off by less than 1e-4 in log LDS, usually by 1e-6, and does what it cannot do so well in float64; float64
    by about 1e-12 on the line, less well on the arc between nearly opposite parents. Latents' values below the normal
    range of their type (1.2e-38 in float32) count as 0. device: cpu, or a GPU such as
    cuda:0. Memory is bounded by the tiles (rows of parents, latents) and the answer, which does not depend on them
    beyond rounding. Alphas 0.1 ... 0.9 on the line cost a few multiplications a latent, any others an exponential.
    backend: exact, or faiss, which is `approximate_pairs` with its settings and index, and gives intervals too.
    Raises InputError for invalid latents or pairs, ConfigError for the rest.
    """
    check_settings(backend, dtype, interpolation, tile_rows, tile_latents, device)
    if backend == "faiss":
        return approximate_pairs(
            train,
            pairs,
            alphas,
            sigmas,
            approximation=approximation,
            index=index,
            interpolation=interpolation,
            tile_rows=tile_rows,
            tile_latents=tile_latents,
        )
    z = validate_latents(train)
    p = check_pairs(pairs, len(z))
    geometry = Geometry.of(z, p, checked_numbers(alphas, "alphas", LARGEST_ALPHA), interpolation)
    precisions, frame = precisions_of(sigmas), _kernel.Frame.over(z)
    others = _kernel.pair_sums(
        frame,
        z,
        np.arange(len(z)),
        p,
        geometry.gaps,
        geometry.mix,
        z,
        precisions,
        dtype,
        max(2, tile_rows),
        tile_latents,
        device,
    )
    return with_parents(geometry, others, precisions, len(z))


def score_block(
    train: ArrayLike,
    rows: ArrayLike,
    columns: ArrayLike,
    alphas: Sequence[float] | Array,
    sigmas: Sequence[float] | Array,
    *,
    interpolation: Interpolation = "linear",
    backend: str = "exact",
    dtype: DTypeLike = np.float32,
    device: str = "cpu",
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> PairScores:
    """Score every pair (i of rows, j of columns): arrays [U, V, A, S]; the rest as `score_pairs`.

    rows: int64[U], columns: int64[V]; a latent in both would be paired with itself and is an InputError. On the line,
    with alphas in 0..1, a candidate costs two multiplications and additions a latent: matrix products.
    """
    z = validate_latents(train)
    if backend != "exact":
        raise ConfigError(f"blocks are scored by backend exact alone; found {backend!r}")
    check_settings(backend, dtype, interpolation, tile_rows, tile_latents, device)
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
    a, precisions, frame = (
        checked_numbers(alphas, "alphas", LARGEST_ALPHA),
        precisions_of(sigmas),
        _kernel.Frame.over(z),
    )
    out = PairScores(*(np.empty((len(u), len(v), len(a), len(precisions))) for _ in fields(PairScores)))
    side = _kernel.block_side(len(a), len(precisions), _kernel.rows_within(tile_rows, z.shape[1]))
    for top in range(0, len(u), side):
        for left in range(0, len(v), side):
            square = slice(top, top + side), slice(left, left + side)
            i, j = u[square[0]].astype(np.int64), v[square[1]].astype(np.int64)
            geometry = Geometry.of(z, _kernel.grid(i, j), a, interpolation)
            own = np.concatenate([i, j])
            others = _kernel.block_sums(
                frame,
                z[own],
                own,
                (len(i), len(j)),
                geometry.gaps,
                geometry.mix,
                z,
                precisions,
                dtype,
                tile_rows,
                tile_latents,
                device,
            )
            part = with_parents(geometry, others, precisions, len(z))
            for field in fields(PairScores):
                target = getattr(out, field.name)[square]
                target[...] = getattr(part, field.name).reshape(target.shape)
    return out


def score_points(
    train: ArrayLike,
    points: ArrayLike,
    sigmas: Sequence[float] | Array,
    *,
    backend: str = "exact",
    approximation: Approximation | None = None,
    index: LatentIndex | None = None,
    leave_out: ArrayLike | None = None,
    dtype: DTypeLike = np.float32,
    device: str = "cpu",
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> Array:
    """log LDS of any points, float64[M, S]; finite, at most 0.

    train: float32[N, d]; points: float32[M, d]; sigmas: positive; dtype: of the arithmetic, see `score_pairs`. A point
    that is itself a training latent counts itself; leave_out: int64[M], a latent that each point does not count, or -1:
    LDS is then the mean over the others. backend: exact, or faiss, the estimates of `approximate_points`.
    Raises InputError for invalid latents, points or rows, ConfigError for the rest.
    """
    check_settings(backend, dtype, "linear", tile_rows, tile_latents, device)
    if backend == "faiss":
        if leave_out is not None:
            raise ConfigError("leave_out goes with backend exact alone")
        tiles = {"tile_rows": tile_rows, "tile_latents": tile_latents}
        return approximate_points(train, points, sigmas, approximation=approximation, index=index, **tiles).log_lds
    z, x = validate_latents(train), checked_points(points, train)
    own = np.full(len(x), -1) if leave_out is None else np.asarray(leave_out)
    if own.shape != (len(x),):
        raise InputError(f"leave_out must be one row for each of {len(x)} points, or -1; found shape {own.shape}")
    check_rows(own[own != -1], len(z), "leave_out")
    if len(z) < 2 and (own >= 0).any():
        raise InputError("a density among the others needs at least 2 training latents; found 1")
    frame, precisions = _kernel.Frame.over(z), precisions_of(sigmas)
    sums = _kernel.point_sums(frame, z, x, own, precisions, dtype, tile_rows, tile_latents, device)
    out: Array = log_mean(sums, len(z))[:, 0]
    out[own >= 0] += math.log(len(z) / max(1, len(z) - 1))
    return out


def score_leave_one_out(
    train: ArrayLike,
    rows: ArrayLike,
    sigmas: Sequence[float] | Array,
    *,
    dtype: DTypeLike = np.float32,
    device: str = "cpu",
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> Array:
    """log of the mean weight of the N - 1 *other* training latents at some of them, float64[M, S]; finite, at most 0.

    train: float32[N, d]; rows: int64[M], which latents; the rest as `score_points`. A duplicate of a latent is another
    latent and counts. Less d log(sigma) + d/2 log(2 pi) it is the leave-one-out log density. Raises InputError for
    invalid latents or rows, or a single latent; ConfigError for the rest.
    """
    z, r = validate_latents(train), np.asarray(rows)
    if r.ndim != 1:
        raise InputError(f"rows must be 1-D; found shape {r.shape}")
    check_rows(r, len(z), "rows")
    if len(z) < 2:
        raise InputError("a density among the others needs at least 2 training latents; found 1")
    check_settings("exact", dtype, "linear", tile_rows, tile_latents, device)
    precisions, frame = precisions_of(sigmas), _kernel.Frame.over(z)
    out = np.empty((len(r), len(precisions)))
    tile_rows = _kernel.rows_within(tile_rows, z.shape[1])
    for start in range(0, len(r), tile_rows):
        own = r[start : start + tile_rows].astype(np.int64)
        sums = _kernel.point_sums(frame, z, z[own], own, precisions, dtype, tile_rows, tile_latents, device)
        out[start : start + tile_rows] = log_mean(sums, len(z) - 1)[:, 0]
    return out


def score_gradient(
    train: ArrayLike,
    points: ArrayLike,
    sigma: float,
    *,
    tile_rows: int = TILE_ROWS // 8,
    tile_latents: int = TILE_LATENTS,
) -> NDArray[np.float32]:
    """Gradient of log LDS at points, float32[M, d]: (sum_k w_k z_k - z) / sigma^2 with softmax weights w; in float64.

    sigma^2 times it is the mean-shift step, and the residual of the optimal denoiser of noise sigma on these latents
    (Vincent 2010). Raises as `score_points`, and InputError where a component exceeds float32 (sigma far too small).
    """
    z, x = validate_latents(train), checked_points(points, train)
    check_settings("exact", np.float64, "linear", tile_rows, tile_latents)
    precision = float(precisions_of([sigma])[0])
    out = np.empty(x.shape, np.float32)
    for part, shift in _kernel.mean_shift(_kernel.Frame.over(z), z, x, precision, tile_rows, tile_latents):
        gradient = shift * (2 * precision)
        if gradient.size and np.abs(gradient).max() > LARGEST:
            raise InputError(f"the gradient at sigma = {sigma:g} exceeds float32; use a larger sigma")
        out[part] = gradient
    return out
