"""Scores over training latents that are cut into shards, wherever the shards are.

The pairs of a unit of work travel with their parents' vectors (`Work`); each shard adds up its latents' weights at
their candidates (`part`); the parts are merged in the order of the shards (`scores`). Shards are cut by the settings,
so that the answer is the same, to the bit, for any number of workers, and whether one of them holds all shards or each
a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.lds import _kernel
from ldsaug_ray.lds._frame import Frame
from ldsaug_ray.lds._kernel import Sums
from ldsaug_ray.lds._shared import TILE_LATENTS, TILE_ROWS, Geometry, PairScores, precisions_of, with_parents
from ldsaug_ray.lds.latents import row_blocks

WORK_BYTES = 2**30  # of the vectors that travel with a unit of work
NOWHERE = 1e300  # squared distance of a second parent that there is not

__all__ = ["Frame", "Sums", "Work", "cut", "parents_of", "part", "runs_within", "score_candidates", "scores"]


def cut(n: int, size: int) -> list[slice]:
    """Shards of at most `size` of n latents, in order."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def runs_within(pairs: NDArray[np.int64], d: int) -> list[slice]:
    """Runs of some pairs, in order, whose parents' vectors take at most a gigabyte in d dimensions."""
    return list(_kernel.pair_tiles(pairs, max(2, WORK_BYTES // (4 * d))))


def parents_of(
    pairs: NDArray[np.int64], columns: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, int] | None]:
    """The different parents of some pairs, the pairs as places among them, and the shape of the grid, if they are one.

    pairs: int64[P, 2]; columns: their number, where the pairs are whole rows of a block.
    """
    if columns is None:
        rows, places = np.unique(pairs, return_inverse=True)
        return rows, places.reshape(-1, 2), None
    rows = np.concatenate([pairs[::columns, 0], pairs[:columns, 1]])
    u = len(rows) - columns
    return rows, _kernel.grid(np.arange(u), np.arange(u, len(rows))), (u, columns)


@dataclass(frozen=True)
class Work:
    """Pairs with all that a shard must know of them.

    rows: int64[R], their parents, as rows of the training latents; vectors: float[R, d], the parents; pairs:
    int64[P, 2], places in `rows`; shape: (U, V) where the pairs are the grid of the first U parents with the V others.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.floating]
    pairs: NDArray[np.int64]
    geometry: Geometry
    sigmas: tuple[float, ...]
    shape: tuple[int, int] | None = None
    ends: Geometry | None = None  # where the parents lie, for points off the curve between them

    @classmethod
    def at_points(
        cls,
        pairs: NDArray[np.int64],  # [M, 2] parents, as rows of the training latents; twice the same for one
        vectors: NDArray[np.floating],  # [R, d] the parents
        local: NDArray[np.int64],  # [M, 2] places in `vectors`
        points: NDArray[np.floating],  # [M, d]
        sigmas: Sequence[float],
    ) -> Work:
        """Work for points anywhere, each a candidate with parents of its own: arrays [M, 1, S].

        A point is the first half of a pair, and all of it; what hides its second parent's column is one more row for
        each different second parent.
        """
        m = len(points)
        seconds, second = np.unique(local[:, 1], return_inverse=True)
        own = np.concatenate([pairs[:, 0], np.zeros(len(seconds), np.int64)])
        own[m + second] = pairs[:, 1]
        halves = np.stack([np.arange(m), m + second.reshape(-1)], axis=1)
        one = pairs[:, 0] == pairs[:, 1]
        halves[one, 1] = halves[one, 0]
        gaps = np.empty((m, 2))
        for rows in row_blocks(*points.shape):
            for side in (0, 1):
                away = points[rows].astype(np.float64) - vectors[local[rows, side]]
                gaps[rows, side] = np.einsum("md,md->m", away, away)
        gaps[one, 1] = NOWHERE
        nothing, itself = np.zeros(m), _kernel.Mix.itself(m)
        off = _kernel.Mix(itself.v, itself.v, itself.u)  # all of the origin: `add_parents` takes distances as norms
        return cls(
            own,
            np.concatenate([points, vectors[seconds]]),
            halves,
            Geometry(itself, nothing, np.broadcast_to(0.0, (m, 2))),
            tuple(sigmas),
            ends=Geometry(off, nothing, gaps),
        )

    @classmethod
    def of(
        cls,
        rows: NDArray[np.int64],
        vectors: NDArray[np.floating],
        pairs: NDArray[np.int64],
        alphas: Sequence[float],
        sigmas: Sequence[float],
        kind: Interpolation,
        shape: tuple[int, int] | None = None,
    ) -> Work:
        """Work for the candidates of the pairs at every alpha and sigma."""
        geometry = Geometry.of(vectors, pairs, np.asarray(alphas, np.float64), kind)
        return cls(rows, vectors, pairs, geometry, tuple(sigmas), shape)


def part(
    frame: Frame,
    work: Work,
    shard: NDArray[np.floating],
    start: int,
    *,
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
    device: str = "cpu",
) -> Sums:
    """Weights of a shard's latents at the candidates, arrays [P, A, S], their own parents left out.

    shard: float[K, d], the latents start..start+K-1; frame: `Frame.over` all of them. float32, as `score_pairs`.
    """
    own, geometry, precisions = work.rows - start, work.geometry, precisions_of(work.sigmas)
    tiles = max(2, tile_rows), tile_latents, device
    if work.shape is not None:
        return _kernel.block_sums(
            frame, work.vectors, own, work.shape, geometry.gaps, geometry.mix, shard, precisions, np.float32, *tiles
        )
    return _kernel.pair_sums(
        frame, work.vectors, own, work.pairs, geometry.gaps, geometry.mix, shard, precisions, np.float32, *tiles
    )


def score_candidates(
    train: NDArray[np.floating], pairs: NDArray[np.int64], points: NDArray[np.floating], sigmas: Sequence[float]
) -> PairScores:
    """Scores of points anywhere, each a candidate of parents of its own, arrays [M, S].

    train: float[N, d]; pairs: int64[M, 2], rows of the parents, twice the same for one; points: float[M, d].
    """
    rows, places, _ = parents_of(pairs)
    work = Work.at_points(pairs, train[rows], places, points, sigmas)
    found = scores(work, [part(Frame.over(train), work, train, 0)], len(train))
    return PairScores(*(getattr(found, f.name)[:, 0] for f in fields(PairScores)))


def scores(work: Work, parts: Iterable[Sums], n: int) -> PairScores:
    """Scores over all n latents, arrays [P, A, S], from the parts of all shards in their order."""
    return with_parents(work.ends or work.geometry, reduce(_kernel.merge, parts), precisions_of(work.sigmas), n)
