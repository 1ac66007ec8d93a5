"""Exact nearest neighbours among features: found by FAISS in float32, ranked by distances in float64.

Where float32 cannot rule out that a neighbour was missed, as among many copies, the query is searched by brute force.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.lds import Approximation, LatentIndex
from ldsaug_ray.lds._compiled import in_threads
from ldsaug_ray.metrics import _compiled
from ldsaug_ray.metrics.features import Features

Index = NDArray[np.int64]
Array = NDArray[np.float64]

SPARE = 8  # neighbours found beyond k, so that a near tie at the k-th is no reason for brute force


def flat_index(points: Features) -> LatentIndex:
    """An exhaustive index over points [N, C]."""
    return LatentIndex.build(points, Approximation(index="flat"))


def nearest_neighbours(
    points: Features, queries: Features, k: int, own: Index | None = None, index: LatentIndex | None = None
) -> tuple[Index, Array]:
    """The k nearest points of each query: numbers int64[Q, k] and squared distances float64[Q, k], nearest first.

    Of points at equal distance the lower number comes first. points [N, C], queries [Q, C]: validated, of one type;
    own: int64[Q], the point that a query is and that does not count, -1 for none; index: `flat_index(points)`, where
    they are searched more than once. Needs k <= N, or N - 1 with `own`.
    """
    left_out = np.full(len(queries), -1, np.int64) if own is None else own
    settings = Approximation(neighbours=min(k + SPARE, len(points)), index="flat")
    found = (index or flat_index(points)).search(points, queries, left_out, settings)
    squares = np.empty(found.ids.shape)
    in_threads(_compiled.squares, len(queries), points, queries, found.ids, squares)
    order = np.lexsort((found.ids, squares), axis=1)[:, :k]
    ids, squares = np.take_along_axis(found.ids, order, axis=1), np.take_along_axis(squares, order, axis=1)
    # at equality a point outside the list may be as near as the k-th, with a lower number
    rows = np.flatnonzero(~(squares[:, -1] < found.beyond))
    if len(rows):
        again, measured = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
        in_threads(_compiled.nearest_of_all, len(rows), points, queries, left_out, rows, again, measured)
        ids[rows], squares[rows] = again, measured
    return ids, squares
