"""The numeric kernel: sums of Gaussian weights over the training latents, tile by tile. Private, to be replaced whole.

A set of weights w_k = exp(-x_k), x_k = ||z - z_k||^2 / 2 sigma^2, is kept as (least, total, squares): the least
exponent x_min, sum(exp(x_min - x_k)) and sum(exp(x_min - x_k)^2). Nothing underflows but what is negligible beside the
largest weight, whatever sigma. Tiles are merged in the order of the latents. All arithmetic is float64, on latents
minus their mean, so that ||a||^2 + ||b||^2 - 2 a.b is good to about 1e-15 of the largest squared norm.

Memory: one tile of squared distances (tile_rows x tile_latents), one tile of latents (tile_latents x d), and strips
of STRIP values. Matrices of candidates by latents exist only as strips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

# float64 values of one strip (8 MB). Smaller ones fit a cache, but every operation on one ends in a thread barrier,
# and those stall where the cores are shared; larger ones only cost memory (four strips live at a time).
STRIP = 2**20


@dataclass(frozen=True)
class Sums:
    """Weights of one set of latents, as arrays of one shape. An empty set is (inf, 0, 0)."""

    least: Array  # smallest exponent x
    total: Array  # sum of exp(least - x)
    squares: Array  # sum of exp(least - x)^2


class Centred:
    """Latents minus their mean: float64 rows on demand, never a whole copy."""

    def __init__(self, train: NDArray[np.floating]) -> None:
        self.train = train  # float32 or float64 [N, d]
        self.mean: Array = train.mean(axis=0, dtype=np.float64)

    def rows(self, index: slice | NDArray[np.int64]) -> torch.Tensor:
        """float64[k, d]"""
        return self.of(self.train[index])

    def of(self, points: NDArray[np.floating]) -> torch.Tensor:
        """Any points [k, d] in the latents' frame, float64."""
        return torch.from_numpy(np.subtract(points, self.mean, dtype=np.float64))

    def tiles(self, size: int) -> Iterator[tuple[int, int]]:
        n = len(self.train)
        for start in range(0, n, size):
            yield start, min(start + size, n)


def pair_sums(
    latents: Centred,
    pairs: NDArray[np.int64],  # [P, 2]
    gaps: Array,  # [P] squared distance between the parents
    alphas: Array,  # [A]
    precisions: Array,  # [S] 1 / 2 sigma^2
    tile_rows: int,
    tile_latents: int,
) -> Sums:
    """Weights of all latents but the two parents, at each pair's candidates: arrays [P, A, S]."""
    shape = (len(pairs), len(alphas), len(precisions))
    sums = Sums(np.full(shape, np.inf), np.zeros(shape), np.zeros(shape))
    for tile in _pair_tiles(pairs, tile_rows):
        parents, local = np.unique(pairs[tile], return_inverse=True)
        local = local.reshape(-1, 2)
        rows = latents.rows(parents)
        into = Sums(sums.least[tile], sums.total[tile], sums.squares[tile])  # views
        for start, stop in latents.tiles(tile_latents):
            squared = _squared_distances(rows, latents.rows(slice(start, stop)))
            strip = max(1, STRIP // (stop - start))
            for at in range(0, len(local), strip):
                part = slice(at, min(at + strip, len(local)))
                _add_strip(into, part, squared, local[part], pairs[tile][part] - start, gaps[tile], alphas, precisions)
    return sums


def _pair_tiles(pairs: NDArray[np.int64], tile_rows: int) -> Iterator[slice]:
    """Cut the list, in order, into runs that have at most `tile_rows` different parents."""
    start = 0
    while start < len(pairs):
        window = pairs[start : start + 16 * tile_rows]
        first_uses = np.sort(np.unique(window, return_index=True)[1])
        length = len(window) if len(first_uses) <= tile_rows else int(first_uses[tile_rows]) // 2
        yield slice(start, start + length)
        start += length


def _squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """float64 [m, d], [k, d] => [m, k]"""
    squared = torch.addmm((b * b).sum(1), a, b.T, alpha=-2)
    return squared.add_((a * a).sum(1, keepdim=True)).clamp_(min=0)


def _add_strip(
    into: Sums,
    part: slice,
    squared: torch.Tensor,  # [parents, K]
    local: NDArray[np.int64],  # [p, 2] the parents' rows in `squared`
    columns: NDArray[np.int64],  # [p, 2] the parents' own columns in this tile, where they are in it
    gaps: Array,
    alphas: Array,
    precisions: Array,
) -> None:
    """Stewart's theorem: the candidates' distances are a weighted mean of the parents', less alpha (1 - alpha) gap."""
    from_i = squared[torch.from_numpy(local[:, 0])]
    slope = squared[torch.from_numpy(local[:, 1])].sub_(from_i)
    pair, side = np.nonzero((columns >= 0) & (columns < squared.shape[1]))
    own = (torch.from_numpy(pair), torch.from_numpy(columns[pair, side]))
    from_i[own] = torch.inf  # a parent weighs nothing here; the caller adds it from its exact distance
    slope[own] = 0.0
    distance, weight = torch.empty_like(from_i), torch.empty_like(from_i)
    for a, alpha in enumerate(alphas):
        torch.add(from_i, slope, alpha=float(alpha), out=distance)
        nearest = distance.amin(1)
        # A tile that holds nothing but the parents has only infinite distances: weights exp(-inf) = 0, never inf - inf
        distance.sub_(torch.where(nearest.isinf(), 0.0, nearest)[:, None])
        least = np.maximum(nearest.numpy() - alpha * (1 - alpha) * gaps[part], 0.0)
        for s, precision in enumerate(precisions):
            torch.mul(distance, -float(precision), out=weight).exp_()
            total = weight.sum(1).numpy()
            squares = weight.square_().sum(1).numpy()
            at = (part, a, s)
            into.least[at], into.total[at], into.squares[at] = _merged(
                into.least[at], into.total[at], into.squares[at], least * precision, total, squares
            )


def _merged(
    least: Array, total: Array, squares: Array, other_least: Array, other_total: Array, other_squares: Array
) -> tuple[Array, Array, Array]:
    low = np.minimum(least, other_least)
    base = np.where(np.isinf(low), 0.0, low)  # both sets empty
    mine, theirs = np.exp(base - least), np.exp(base - other_least)
    return low, total * mine + other_total * theirs, squares * mine**2 + other_squares * theirs**2


def merge(a: Sums, b: Sums) -> Sums:
    """Sums of the union of two disjoint sets of latents."""
    return Sums(*_merged(a.least, a.total, a.squares, b.least, b.total, b.squares))


def point_sums(
    latents: Centred, points: NDArray[np.floating], precisions: Array, tile_rows: int, tile_latents: int
) -> tuple[Array, Array]:
    """Weights of all latents at any points [M, d]: (least, total), [M, S] each."""
    least = np.full((len(points), len(precisions)), np.inf)
    total = np.zeros_like(least)
    for at in range(0, len(points), tile_rows):
        part = slice(at, min(at + tile_rows, len(points)))
        rows = latents.of(points[part])
        for start, stop in latents.tiles(tile_latents):
            squared = _squared_distances(rows, latents.rows(slice(start, stop)))
            nearest = squared.amin(1)
            squared.sub_(nearest[:, None])
            for s, precision in enumerate(precisions):
                tile_total = torch.mul(squared, -float(precision)).exp_().sum(1).numpy()
                least[part, s], total[part, s], _ = _merged(
                    least[part, s], total[part, s], total[part, s], nearest.numpy() * precision, tile_total, tile_total
                )
    return least, total


def mean_shift(
    latents: Centred, points: NDArray[np.floating], precision: float, tile_rows: int, tile_latents: int
) -> Iterator[tuple[slice, Array]]:
    """Weighted mean of the latents minus the point, float64[m, d], for one run of points [M, d] after another."""
    for at in range(0, len(points), tile_rows):
        part = slice(at, min(at + tile_rows, len(points)))
        rows = latents.of(points[part])
        least = torch.full((len(rows), 1), torch.inf, dtype=torch.float64)
        total, mean = torch.zeros_like(least), torch.zeros_like(rows)
        for start, stop in latents.tiles(tile_latents):
            tile = latents.rows(slice(start, stop))
            exponent = _squared_distances(rows, tile).mul_(precision)
            low = torch.minimum(least, exponent.amin(1, keepdim=True))
            scale = (low - least).exp_()
            weight = exponent.sub_(low).neg_().exp_()
            total = total * scale + weight.sum(1, keepdim=True)
            mean = torch.addmm(mean * scale, weight, tile)
            least = low
        yield part, (mean / total - rows).numpy()
