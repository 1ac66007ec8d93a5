"""Sums of Gaussian weights over training latents, tile by tile: the numeric heart of the density engine. Private.

Long, since tiles, their merging and the check of their rounding share one layout of memory.

A set of weights w_k = exp(-x_k), x_k = ||z - z_k||^2 / 2 sigma^2, is kept as (base, total, squares): an exponent near
the least one, sum(exp(base - x_k)) and sum(exp(base - x_k)^2). Nothing underflows but what is negligible beside the
largest weight, whatever sigma. Tiles and shards are merged in the order of the latents.

Arithmetic is float32, in a frame where the latents' mean is 0 and their size about 1. Its error is not assumed but
measured: each call also takes some inner products in float64, and what an exponent may be off follows from that
(`Rounding`). At sigmas where it is more than TOLERANCE, only the latents that can matter are added up, the heaviest of
them at exact distances (`_terms_compiled`). Single pairs of which it is more, sums that have left float32's range, and
all that a GPU cannot do in float32 are taken again in float64: outlying latents cost time, not digits.

Memory: the rows of a tile (tile_rows x d, tile_latents x d), their inner products (tile_rows x tile_latents), and the
sums themselves. Nothing of size candidates x latents exists. Beyond 4,096 dimensions tiles have fewer rows, so that
they keep their size in bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from ldsaug_ray.lds import _compiled, _tenths_compiled, _terms_compiled
from ldsaug_ray.lds._compiled import FAR, LOG2_E, in_threads
from ldsaug_ray.lds._frame import EPSILON, SAMPLE, Frame, Rounding, Rows, evenly

Array = NDArray[np.float64]
Index = NDArray[np.int64]

TOLERANCE = 3e-5  # of log LDS: the estimated error up to which float32 sums stand
LIMIT = 7e-5  # the same for the largest error that was found possible
PROMISED = 1e-4  # of log LDS
TYPICAL = 0.98  # of the rows have norms up to what decides whether a sigma is too small for float32
ROUNDINGS = 2  # of the largest rounding that was found, to be safe from larger ones
LEAST_TOTAL, LARGEST_TOTAL = 1e-14, 1e18  # sums of weights outside have lost float32 digits; their squares do first
OUTLYING = 2.0  # of the typical norm: latents beyond are no bound of the others' rounding
LARGEST_RISE = 60.0  # nats by which a latent may come nearer than the nearest that sums start from
LEAST_FACTOR = 1e-24  # below, even a hidden latent would have weight in float32
FEW = 512  # latents among which a row's nearest is sought before all are seen
NEGLIGIBLE = 25.0  # nats below the largest weight: 1e-11 of it
BLOCK_BYTES = 32 * 2**20  # of each array over the candidates of one square of a block
EXACT_ROWS = 64  # of a float64 product
ROW_BYTES, LATENT_BYTES = 512 * 2**20, 64 * 2**20  # of the float32 rows and latents of a tile, at most


@dataclass(frozen=True)
class Sums:
    """Weights of one set of latents, as arrays of one shape. An empty set is (inf, 0, 0)."""

    base: Array  # an exponent x
    total: Array  # sum of exp(base - x_k)
    squares: Array  # sum of exp(base - x_k)^2

    @classmethod
    def empty(cls, *shape: int) -> Sums:
        """The sums over no latents."""
        return cls(np.full(shape, np.inf), np.zeros(shape), np.zeros(shape))

    def of(self, part: Any) -> Sums:
        """Some of the sums, by any NumPy index."""
        return Sums(self.base[part], self.total[part], self.squares[part])

    def put(self, part: Any, others: Sums) -> None:
        """Replace some of the sums."""
        self.base[part], self.total[part], self.squares[part] = others.base, others.total, others.squares


def merge(a: Sums, b: Sums) -> Sums:
    """Sums of the union of two disjoint sets of latents."""
    low = np.minimum(a.base, b.base)
    base = np.where(np.isinf(low), 0.0, low)  # both sets empty
    mine, theirs = np.exp(base - a.base), np.exp(base - b.base)
    return Sums(low, a.total * mine + b.total * theirs, a.squares * mine**2 + b.squares * theirs**2)


@dataclass(frozen=True)
class Mix:
    """z = u z_i + v z_j for every pair and alpha, float64[P, A] each; w = 1 - u - v, the share of the origin.

    tenths: int64[A], where z = (1 - t/10) z_i + t/10 z_j with t from 1 to 9; none for any other grid or curve.
    """

    u: Array
    v: Array
    w: Array
    tenths: Index | None = None

    @classmethod
    def itself(cls, n: int) -> Mix:
        """n points, each a pair with itself of which all is in the first half."""
        return cls(*(np.full((n, 1), share) for share in (1.0, 0.0, 0.0)))

    def of(self, part: slice | Index) -> Mix:
        """The same for some of the pairs."""
        return Mix(self.u[part], self.v[part], self.w[part], self.tenths)


def pair_sums(
    frame: Frame,
    parents: NDArray[np.floating],  # [R, d]
    own: Index,  # [R] see `shard_sums`
    pairs: Index,  # [P, 2] rows of `parents`
    gaps: Array,  # [P] squared distance between the parents
    mix: Mix,
    shard: NDArray[np.floating],  # [K, d]
    precisions: Array,  # [S] 1 / 2 sigma^2
    dtype: DTypeLike,
    tile_rows: int,
    tile_latents: int,
    device: str = "cpu",
) -> Sums:
    """`shard_sums` for any number of pairs: a run of them with at most `tile_rows` different parents at a time."""
    sums = Sums.empty(*mix.u.shape, len(precisions))
    tile_rows = rows_within(tile_rows, shard.shape[1])
    for tile in pair_tiles(pairs, tile_rows):
        used, local = np.unique(pairs[tile], return_inverse=True)
        part = shard_sums(
            frame,
            parents[used],
            own[used],
            local.reshape(-1, 2),
            gaps[tile],
            mix.of(tile),
            shard,
            precisions,
            dtype,
            _latents_for(len(used), tile_rows, tile_latents, shard.shape[1]),
            device,
        )
        sums.put(tile, part)
    return sums


def point_sums(
    frame: Frame,
    train: NDArray[np.floating],
    points: NDArray[np.floating],  # [M, d]
    own: Index | None,  # [M] the latent that a point is and that is left out
    precisions: Array,
    dtype: DTypeLike,
    tile_rows: int,
    tile_latents: int,
    device: str = "cpu",
) -> Sums:
    """Weights of all latents, or all but a point's own, at any points: arrays [M, 1, S]."""
    own = np.full(len(points), -1) if own is None else own
    sums = Sums.empty(len(points), 1, len(precisions))
    tile_rows = rows_within(tile_rows, train.shape[1])
    for start in range(0, len(points), tile_rows):
        tile = slice(start, min(start + tile_rows, len(points)))
        m = tile.stop - tile.start
        local = np.repeat(np.arange(m)[:, None], 2, axis=1)
        width = _latents_for(m, tile_rows, tile_latents, train.shape[1])
        part = shard_sums(
            frame, points[tile], own[tile], local, np.zeros(m), Mix.itself(m), train, precisions, dtype, width, device
        )
        sums.put(tile, part)
    return sums


def block_sums(
    frame: Frame,
    parents: NDArray[np.floating],  # [U + V, d] the rows' vectors, then the columns'
    own: Index,  # [U + V]
    shape: tuple[int, int],  # U, V
    gaps: Array,  # [U * V]
    mix: Mix,
    shard: NDArray[np.floating],
    precisions: Array,
    dtype: DTypeLike,
    tile_rows: int,
    tile_latents: int,
    device: str = "cpu",
) -> Sums:
    """`shard_sums` at the candidates of every (row, column), rows slowest: arrays [U * V, A, S]."""
    local = grid(np.arange(shape[0]), np.arange(shape[0], sum(shape)))
    width = _latents_for(len(parents), tile_rows, tile_latents, shard.shape[1])
    return shard_sums(frame, parents, own, local, gaps, mix, shard, precisions, dtype, width, device, shape=shape)


def grid(rows: Index, columns: Index) -> Index:
    """Every row with every column, int64[U * V, 2], rows slowest."""
    return np.stack([np.repeat(rows, len(columns)), np.tile(columns, len(rows))], axis=1)


def block_side(alphas: int, sigmas: int, tile_rows: int) -> int:
    """Rows and columns of the squares that a block is cut into, so that their sums and parents stay within bounds."""
    return max(1, min(tile_rows // 2, int(math.sqrt(BLOCK_BYTES / (8 * alphas * sigmas)))))


def pair_tiles(pairs: Index, tile_rows: int) -> Iterator[slice]:
    """Cut the list, in order, into runs that have at most `tile_rows` different parents."""
    start = 0
    while start < len(pairs):
        window = pairs[start : start + 16 * tile_rows]
        first_uses = np.sort(np.unique(window, return_index=True)[1])
        length = len(window) if len(first_uses) <= tile_rows else int(first_uses[tile_rows]) // 2
        yield slice(start, start + length)
        start += length


def rows_within(rows: int, d: int) -> int:
    """At most so many rows, and no more than ROW_BYTES of float32 in d dimensions: 32,768 at d = 4,096."""
    return max(2, min(rows, ROW_BYTES // (4 * d)))


def _latents_for(rows: int, tile_rows: int, tile_latents: int, d: int) -> int:
    """Latents at a time beside so many rows: more where the rows are few, since wide products are faster."""
    wanted = tile_latents * max(1, min(4, tile_rows // max(1, rows)))
    return max(1, min(wanted, LATENT_BYTES // (4 * d)))


def shard_sums(
    frame: Frame,
    parents: NDArray[np.floating],  # [R, d]
    own: Index,  # [R] the row of the shard that a parent is; any other number where it is not in the shard
    pairs: Index,  # [P, 2] rows of `parents`
    gaps: Array,  # [P] squared distance between the parents
    mix: Mix,
    shard: NDArray[np.floating],  # [K, d] some of the training latents, or all
    precisions: Array,  # [S] 1 / 2 sigma^2
    dtype: DTypeLike,
    tile_latents: int,
    device: str = "cpu",
    *,
    shape: tuple[int, int] | None = None,
) -> Sums:
    """Weights of a shard's latents but the two parents, at each pair's candidates: arrays [P, A, S].

    device: where products and weights are computed; shape: (U, V) where the pairs are the grid of the first U parents
    with the V others.
    """
    factors, gaps = precisions * frame.scale**2, gaps / frame.scale**2
    sums = Sums.empty(*mix.u.shape, len(factors))
    poor = np.ones((len(pairs), len(factors)), bool)
    if np.dtype(dtype) != np.float64:
        tile = _Tile(frame, parents, own, pairs, gaps, mix, np.float32, device, shape)
        rounding = Rounding.measured(frame, parents, tile.rows, shard, device)
        tile.look(shard, tile_latents)
        single, listed = tile.plan(factors, rounding)
        if listed.any():
            tile.terms = _Terms(tile, factors[listed], math.log(len(shard) / TOLERANCE), rounding)
        if single.any():
            found, usual, most = tile.sums(shard, factors[single], tile_latents, rounding)
            sums.put((slice(None), slice(None), single), found)
            poor[:, single] = ~((usual <= TOLERANCE) & (most <= LIMIT))  # so that NaN is poor
        elif listed.any():
            for _ in tile.products(shard, tile_latents):
                pass  # the terms are all that is wanted
        if tile.terms is not None:
            sums.put((slice(None), slice(None), listed), tile.terms.sums().of(np.argsort(tile.order)))
            poor[:, listed] = False
    again, sigmas = np.flatnonzero(poor.any(1)), np.flatnonzero(poor.any(0))
    if len(again):
        used, local = np.unique(pairs[again], return_inverse=True)
        left = local.reshape(-1, 2), gaps[again], mix.of(again)
        tile = _Tile(frame, parents[used], own[used], *left, np.float64, device)
        exact, *_ = tile.sums(shard, factors[sigmas], tile_latents, Rounding(0.0, 0.0))
        for column, sigma in enumerate(sigmas):
            rows = np.flatnonzero(poor[again, sigma])
            sums.put((again[rows], slice(None), sigma), exact.of((rows, slice(None), column)))
    return sums


@dataclass(frozen=True)
class _Raw:
    """What a tile's loops add up, pairs in the tile's order: see `_compiled.settle`."""

    total: NDArray[np.floating]  # [P, ., S]
    squares: NDArray[np.floating]
    column: Index  # [A] place of each alpha in them
    shift: Array  # [P, A]
    low: NDArray[np.float32]  # [R]
    lost: NDArray[np.bool_] | None = None  # [P, S] sums that weights were cut off from


class _Tile:
    """Some pairs and their parents' rows, to be met by the latents of a shard tile by tile."""

    def __init__(
        self,
        frame: Frame,
        parents: NDArray[np.floating],
        own: Index,
        pairs: Index,
        gaps: Array,  # in the frame
        mix: Mix,
        dtype: DTypeLike,
        device: str = "cpu",
        shape: tuple[int, int] | None = None,
    ) -> None:
        self.frame, self.own, self.dtype, self.device, self.shape = frame, own, np.dtype(dtype), device, shape
        self.order: Index = np.argsort(pairs[:, 0], kind="stable")  # pairs that share a row follow each other
        self.i, self.j = (np.ascontiguousarray(pairs[self.order, side]) for side in (0, 1))
        self.gaps, self.mix = gaps[self.order], mix if shape is not None else mix.of(self.order)
        self.rows, self.parents = frame.rows(parents, dtype), parents
        # norms of the latents seen: the largest, the largest that is not outlying, the least that is
        self.farthest, self.common, self.outlying = 0.0, 0.0, math.inf
        self.terms: _Terms | None = None
        # where sums start from the rows' nearest latents: by how much candidates are farther; and the largest norm of
        # some latents that are not outlying
        self.depth, self.reach = 0.0, 0.0
        self.triton = device != "cpu" or os.environ.get("TRITON_INTERPRET") == "1"

    def look(self, shard: NDArray[np.floating], tile_latents: int) -> None:
        """Learn from latents of the whole shard, which may be in the order of their clusters, by how much the nearest
        of a candidate is farther than the nearest of its parents are from these: for most pairs. Sums that start from
        the latter are as small as that."""
        if self._method() == self._general or self.triton:
            return
        some, pairs = evenly(len(shard), tile_latents), evenly(len(self.i), SAMPLE // 2)
        used, local = np.unique(np.stack([self.i[pairs], self.j[pairs]]), return_inverse=True)
        found = self.frame.rows(shard[some], np.float32)
        ordinary = found.norms[found.norms <= OUTLYING**2 * self.frame.typical_norm]
        self.reach = math.sqrt(ordinary.max(initial=0))
        gaps = self._gaps(used, some, found)
        gaps -= gaps.min(1, keepdims=True)
        i, j = local.reshape(2, -1)
        u, v = self.mix.u[pairs].astype(np.float32), self.mix.v[pairs].astype(np.float32)
        least = [(u[:, a, None] * gaps[i] + v[:, a, None] * gaps[j]).min(1) for a in range(u.shape[1])]
        self.depth = float(np.quantile(np.max(least, axis=0), TYPICAL))

    def _nearest(self, shard: NDArray[np.floating], tile_latents: int) -> NDArray[np.float32]:
        """Of each row among a few latents of the whole shard, as `_gaps` has it: sums start from it, if the first tile
        has none that is nearer. FAR where there is but one tile."""
        if len(shard) <= tile_latents:
            return np.full(len(self.own), FAR)
        few = evenly(len(shard), tile_latents)[:: max(1, tile_latents // FEW)]
        return self._gaps(np.arange(len(self.own)), few, self.frame.rows(shard[few], np.float32)).min(1)

    def _gaps(self, rows: Index, latents: Index, found: Rows) -> NDArray[np.float32]:
        """Squared distances less the rows' own norms, float32[R, k], of some rows from the shard's latents of these
        numbers."""
        cross = torch.mm(torch.from_numpy(self.rows.vectors[rows]), found.tensor().T).numpy()
        own = np.searchsorted(latents, self.own[rows]).clip(max=len(latents) - 1)
        _hide(cross, np.where(latents[own] == self.own[rows], own, -1))
        return found.norms_from(self.frame.typical_norm) - 2 * cross

    def plan(self, factors: Array, rounding: Rounding) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """At which sigmas float32 sums will do for most pairs, and at which terms are to be listed, bool[S] each."""
        sizes = np.sqrt(self.rows.norms)
        possible = factors > LEAST_FACTOR
        if self.triton:
            size = np.median(sizes) + np.minimum(math.sqrt(NEGLIGIBLE) / np.sqrt(factors), sizes.max())
            return possible & (factors * rounding.usual * size**2 <= TOLERANCE), np.zeros_like(possible)
        shares = (np.abs(self.mix.u) + np.abs(self.mix.v) + np.abs(self.mix.w)).max(initial=0.0)
        size = np.quantile(sizes, TYPICAL)
        largest = shares * factors * (size + max(1.25 * size, self.reach)) ** 2  # of some latents that lie farther
        weights = EPSILON * NEGLIGIBLE
        clear = (largest * rounding.usual + weights <= TOLERANCE) & (largest * rounding.most + weights <= LIMIT)
        clear &= self.depth * factors <= -math.log(LEAST_TOTAL)
        return possible & clear, possible & ~clear

    def sums(
        self, shard: NDArray[np.floating], factors: Array, tile_latents: int, rounding: Rounding
    ) -> tuple[Sums, Array, Array]:
        """Sums [P, A, S] in the order of the pairs given, and by how much log LDS is off at a pair's worst candidate,
        [P, S] each: as a rule, and at the very most; infinite or NaN where the sum has lost its digits.
        """
        raw = self._method()(shard, factors, tile_latents)
        shape = (*self.mix.u.shape, len(factors))
        base, total, squares = (np.empty(shape) for _ in range(3))
        usual, most = (np.empty((shape[0], shape[2])) for _ in range(2))
        in_threads(
            _compiled.settle,
            len(self.i),
            self.order,
            self.i,
            self.j,
            self.gaps,
            self.mix.u,
            self.mix.v,
            self.mix.w,
            self.rows.norms,
            self.rows.along,
            self.frame.origin_norm,
            raw.shift,
            raw.low,
            self.frame.typical_norm,
            self.farthest,
            self.common,
            self.outlying,
            factors,
            raw.total,
            raw.squares,
            raw.column,
            rounding.usual,
            rounding.most,
            EPSILON,
            NEGLIGIBLE,
            LEAST_TOTAL,
            LARGEST_TOTAL,
            base,
            total,
            squares,
            usual,
            most,
        )
        if raw.lost is not None:
            usual[raw.lost] = np.inf
        return Sums(base, total, squares), usual, most

    def _method(self) -> Callable[..., _Raw]:
        if self.triton:
            return self._on_device
        if self.dtype == np.float32 and self.shape is not None and not self.mix.w.any():
            alphas = self.mix.v[0]
            if (alphas > 0).all() and (alphas < 1).all():
                return self._products_of_rows
        return self._tenths if self.dtype == np.float32 and self.mix.tenths is not None else self._general

    def _products_of_rows(self, shard: NDArray[np.floating], factors: Array, tile_latents: int) -> _Raw:
        """For a grid of pairs: w = exp(-(1 - alpha) x_i) exp(-alpha x_j), so sums over latents are matrix products."""
        assert self.shape is not None
        size, alphas = self.shape[0], self.mix.v[0]
        sums = np.zeros((2, len(alphas), len(factors), *self.shape), np.float32)
        total, squares = (torch.from_numpy(s) for s in sums)
        reference = lowest = self._nearest(shard, tile_latents)
        nearest = np.empty(len(self.own), np.float32)
        for tile, (cross, latents, own) in enumerate(self.products(shard, tile_latents)):
            _hide(cross, own)
            norms = latents.norms_from(self.frame.typical_norm)
            weights = np.empty_like(cross)
            in_threads(_compiled.least_gap, len(cross), cross, norms, nearest)
            lowest = np.minimum(lowest, nearest)
            if tile == 0:
                reference = lowest
            for a, alpha in enumerate(alphas):
                for s, factor in enumerate(factors):
                    for part, share in ((slice(0, size), 1 - alpha), (slice(size, None), alpha)):
                        in_threads(
                            _compiled.kernel_rows,
                            len(cross[part]),
                            cross[part],
                            norms,
                            reference[part],
                            np.float32(factor * share * LOG2_E),
                            weights[part],
                        )
                    mine, theirs = torch.from_numpy(weights[:size]), torch.from_numpy(weights[size:])
                    total[a, s].addmm_(mine, theirs.T)
                    squares[a, s].addmm_(mine.square_(), theirs.square_().T)
        total_, squares_ = (s.reshape(len(alphas), len(factors), len(self.i)).transpose(2, 0, 1) for s in sums)
        cut = (reference - lowest)[:, None] * factors >= LARGEST_RISE  # kernel_rows has cut weights off
        return _Raw(total_, squares_, np.arange(len(alphas)), self._nothing, reference, cut[self.i] | cut[self.j])

    def _tenths(self, shard: NDArray[np.floating], factors: Array, tile_latents: int) -> _Raw:
        """See `_tenths_compiled`."""
        assert self.mix.tenths is not None
        steps = (factors * (LOG2_E / 10)).astype(np.float32)
        total, squares = np.zeros((2, len(self.i), 9, len(factors)))
        reference, nearest = np.empty(len(self.own), np.float32), self._nearest(shard, tile_latents)
        for tile, (cross, latents, own) in enumerate(self.products(shard, tile_latents)):
            _hide(cross, own)
            norms = latents.norms_from(self.frame.typical_norm)
            if tile == 0:  # any value near the least will do
                in_threads(_compiled.least_gap, len(cross), cross, norms, reference)
                reference = np.minimum(reference, nearest)
            in_threads(
                _tenths_compiled.add_tenths,
                len(self.i),
                cross,
                norms,
                reference,
                own,
                self.i,
                self.j,
                steps,
                total,
                squares,
            )
        return _Raw(total, squares, self.mix.tenths - 1, self._nothing, reference)

    def _general(self, shard: NDArray[np.floating], factors: Array, tile_latents: int) -> _Raw:
        """With an exponential for every candidate and latent; the rest as `_tenths`."""
        u, v, w = self.mix.u, self.mix.v, self.mix.w
        low = np.full(u.shape, np.inf)
        total, squares = np.zeros((2, *u.shape, len(factors)))
        far = FAR if self.dtype == np.float32 else np.float64(1e300)
        for cross, latents, own in self.products(shard, tile_latents):
            common = latents.along.astype(self.dtype) if w.any() else np.zeros(cross.shape[1], self.dtype)
            in_threads(
                _compiled.add_combinations,
                len(self.i),
                cross,
                latents.norms_from(self.frame.typical_norm),
                common,
                own,
                far,
                self.i,
                self.j,
                u,
                v,
                w,
                factors * LOG2_E,
                low,
                total,
                squares,
            )
        return _Raw(total, squares, np.arange(u.shape[1]), low, np.zeros(len(self.own), np.float32))

    def _on_device(self, shard: NDArray[np.floating], factors: Array, tile_latents: int) -> _Raw:
        """`_general` by Triton; where memory is this fast, exponentials cost little."""
        from ldsaug_ray.lds._triton import Combinations

        shares = self.mix.u, self.mix.v, self.mix.w
        sums = Combinations(torch.device(self.device), self.rows.vectors, self.i, self.j, shares, factors * LOG2_E)
        for latents, own in self._latents(shard, tile_latents):
            norms, common = latents.norms_from(self.frame.typical_norm), latents.along.astype(self.dtype)
            sums.add(latents.vectors, norms, common, own)
        low, total, squares = sums.result()
        return _Raw(total, squares, np.arange(low.shape[1]), low, np.zeros(len(self.own), np.float32))

    def _latents(self, shard: NDArray[np.floating], tile_latents: int) -> Iterator[tuple[Rows, Index]]:
        """The latents of one tile after another, and the rows' own places in it."""
        for start in range(0, len(shard), tile_latents):
            latents = self.frame.rows(shard[start : start + tile_latents], self.dtype)
            out = latents.norms > OUTLYING**2 * self.frame.typical_norm
            self.farthest = max(self.farthest, math.sqrt(latents.norms.max()))
            self.common = max(self.common, math.sqrt(latents.norms[~out].max(initial=0)))
            self.outlying = min(self.outlying, math.sqrt(latents.norms[out].min(initial=math.inf)))
            yield latents, self.own - start

    def products(
        self, shard: NDArray[np.floating], tile_latents: int
    ) -> Iterator[tuple[NDArray[np.floating], Rows, Index]]:
        """Inner products [R, k] with the latents of one tile after another; the rows' own columns in it."""
        space = np.empty(len(self.rows.vectors) * min(tile_latents, len(shard)), self.dtype)
        for tile, (latents, own) in enumerate(self._latents(shard, tile_latents)):
            cross = space[: len(self.rows.vectors) * len(latents.norms)].reshape(-1, len(latents.norms))
            _multiply(self.rows.tensor(), latents.tensor(), torch.from_numpy(cross))
            if self.terms is not None:
                start = tile * tile_latents
                self.terms.add(self, cross, latents, own, shard[start : start + tile_latents])
            yield cross, latents, own

    @property
    def _nothing(self) -> Array:
        return np.broadcast_to(0.0, self.mix.u.shape)


class _Terms:
    """Sums of the listed terms of a tile's pairs: see `_terms_compiled`."""

    def __init__(self, tile: _Tile, factors: Array, margin: float, rounding: Rounding) -> None:
        rows, frame, (u, v, w) = tile.rows, tile.frame, (tile.mix.u, tile.mix.v, tile.mix.w)
        from_i, from_j = ((rows.norms + frame.origin_norm - 2 * rows.along)[side, None] for side in (tile.i, tile.j))
        within = u * v * tile.gaps[:, None] + w * (u * from_i + v * from_j)
        n_i, n_j = (rows.norms[side, None] for side in (tile.i, tile.j))
        self.norms = u * n_i + v * n_j + w * frame.origin_norm - within  # of the candidates
        size = np.maximum(n_i, n_j)[:, 0]
        self.arc = bool(w.any())
        if self.arc:
            size = np.maximum(size, frame.origin_norm)
        largest = ROUNDINGS * (rounding.most + EPSILON)
        self.rounding, self.stays = 2 * largest, largest * min(TOLERANCE / rounding.usual, PROMISED / largest)
        shares = (np.abs(u) + np.abs(v) + np.abs(w)).max(1, initial=0.0)
        self.shares, off = shares.astype(np.float32), self.rounding * shares * (size + frame.typical_norm)
        self.off = off.astype(np.float32)
        self.factors, self.margin, self.typical_norm = factors, margin, frame.typical_norm
        self.least, shape = np.full(u.shape, FAR, np.float32), (*u.shape, len(factors))
        self.base, self.total, self.squares, self.left = np.full(shape, np.inf), *np.zeros((3, *shape))

    def add(
        self, tile: _Tile, cross: NDArray[np.float32], latents: Rows, own: Index, given: NDArray[np.floating]
    ) -> None:
        """Take in one tile's inner products [R, K] with latents that are `given` as float[K, d]."""
        in_threads(
            _terms_compiled.add_terms,
            len(tile.i),
            cross,
            latents.norms_from(self.typical_norm),
            (self.rounding * np.maximum(latents.norms - self.typical_norm, 0)).astype(np.float32),
            latents.along.astype(np.float32),
            own,
            tile.i,
            tile.j,
            tile.mix.u,
            tile.mix.v,
            tile.mix.w,
            self.arc,
            self.off,
            self.shares,
            self.stays,
            self.factors,
            self.margin,
            tile.parents,
            tile.rows.norms,
            given,
            tile.frame.origin_norm,
            self.typical_norm,
            tile.frame.scale,
            self.least,
            self.base,
            self.total,
            self.squares,
            self.left,
        )

    def sums(self) -> Sums:
        """What was added up, pairs in the tile's order."""
        exponents = (self.base + (self.norms + self.typical_norm)[..., None]) * self.factors
        return Sums(exponents, self.total, self.squares)


def _multiply(rows: torch.Tensor, latents: torch.Tensor, out: torch.Tensor) -> None:
    """Inner products [R, k], float64 ones in blocks of one shape: which rows are taken again in float64 depends on all
    bandwidths that are asked for, and a library's products of another shape may differ in their last bit."""
    if rows.dtype != torch.float64:
        torch.mm(rows, latents.T, out=out)
        return
    for start in range(0, len(rows), EXACT_ROWS):
        block = rows[start : start + EXACT_ROWS]
        missing = EXACT_ROWS - len(block)
        padded = torch.cat([block, block.new_zeros(missing, block.shape[1])]) if missing else block
        out[start : start + len(block)] = torch.mm(padded, latents.T)[: len(block)]


def _hide(cross: NDArray[np.floating], own: Index) -> None:
    """Give every row's own column, where the tile has it, no weight."""
    inside = np.flatnonzero((own >= 0) & (own < cross.shape[1]))
    cross[inside, own[inside]] = -FAR


def mean_shift(
    frame: Frame,
    train: NDArray[np.floating],
    points: NDArray[np.floating],
    precision: float,
    tile_rows: int,
    tile_latents: int,
) -> Iterator[tuple[slice, Array]]:
    """Weighted mean of the latents minus the point, float64[m, d], for one run of points [M, d] after another."""
    factor = precision * frame.scale**2
    d = points.shape[1]
    tile_rows = max(1, rows_within(4 * tile_rows, d) // 4)  # there are several arrays of them, of float64
    tile_latents = _latents_for(tile_rows, tile_rows, tile_latents, d)
    for at in range(0, len(points), tile_rows):
        part = slice(at, min(at + tile_rows, len(points)))
        rows = torch.from_numpy(frame.rows(points[part], np.float64).vectors)
        norms = (rows * rows).sum(1, keepdim=True)
        least = torch.full((len(rows), 1), torch.inf, dtype=torch.float64)
        total, mean = torch.zeros_like(least), torch.zeros_like(rows)
        for start in range(0, len(train), tile_latents):
            tile = torch.from_numpy(frame.rows(train[start : start + tile_latents], np.float64).vectors)
            exponent = torch.addmm((tile * tile).sum(1), rows, tile.T, alpha=-2).add_(norms).clamp_(min=0).mul_(factor)
            low = torch.minimum(least, exponent.amin(1, keepdim=True))
            scale = (low - least).exp_()
            weight = exponent.sub_(low).neg_().exp_()
            total = total * scale + weight.sum(1, keepdim=True)
            mean = torch.addmm(mean * scale, weight, tile)
            least = low
        yield part, ((mean / total - rows) * frame.scale).numpy()
