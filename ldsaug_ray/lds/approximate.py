"""The Latent Density Score approximately: near latents exactly, the rest from a shared random sample, with intervals.

    N LDS = sum over the near field + (far latents) * (mean weight of the far latents in the sample)

is unbiased whatever the near field is (DEANN: Karppa, Aumueller and Pagh 2022), so an index that misses a neighbour
costs variance, not bias. The near field of a pair's candidates are the lists of its two parents: one search for each
distinct parent serves every alpha and sigma, and holds nearly as much of the sum as lists of the candidates' own.

Intervals are `_far`'s. Their upper ends need a bound on every far weight, which follows from the lists' edges by
Stewart's theorem where the index is exhaustive (flat). Any other index may have missed a near latent; then the upper
end can be too low, more often than delta, and `bounded` says so. Lower ends are certain either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds._kernel import Mix, pair_tiles, rows_within
from ldsaug_ray.lds._near_far import BoundedScores, OrderedLatents, Reading
from ldsaug_ray.lds._shared import (
    LARGEST_ALPHA,
    TILE_LATENTS,
    TILE_ROWS,
    Geometry,
    check_settings,
    checked_numbers,
    checked_points,
    log_mean,
    precisions_of,
)
from ldsaug_ray.lds.index import Approximation, LatentIndex
from ldsaug_ray.lds.latents import check_pairs, validate_latents

Array = NDArray[np.float64]

STATES = 2**20  # candidates x sigmas whose bounds are kept at a time, about 150 bytes each
LOOKS = np.array(
    [1 / 8, 1 / 4, 1 / 2, 1.0]
)  # the sample is taken in with so much at a time, so that each part sets the next


@dataclass(frozen=True)
class BoundedPoints:
    """log LDS of points, float64[M, S]: estimate and interval; bounded: as `BoundedScores`."""

    log_lds: Array
    log_lds_low: Array
    log_lds_high: Array
    bounded: bool


def approximate_pairs(
    train: ArrayLike,
    pairs: ArrayLike,
    alphas: Sequence[float] | Array,
    sigmas: Sequence[float] | Array,
    *,
    approximation: Approximation | None = None,
    index: LatentIndex | None = None,
    latents: OrderedLatents | None = None,
    interpolation: Interpolation = "linear",
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> BoundedScores:
    """`score_pairs` approximately: arrays [P, A, S]; parent_share and effective_neighbours from the same sums.

    index, latents: over these latents and with this seed, default new ones. An interval holds with probability
    1 - delta each (see `bounded`). The same seed gives the same answer, beyond rounding. Raises as `score_pairs`.
    """
    settings = approximation or Approximation()
    z = validate_latents(train)
    p = check_pairs(pairs, len(z))
    check_settings("faiss", np.float32, interpolation, tile_rows, tile_latents)
    a, precisions = checked_numbers(alphas, "alphas", LARGEST_ALPHA), precisions_of(sigmas)
    latents = latents or OrderedLatents.of(z, settings.seed)
    index = _index_over(z, index, settings, latents)
    shape = (len(p), len(a), len(precisions))
    out = {f.name: np.empty(shape) for f in fields(BoundedScores) if f.name != "bounded"}
    bounded = True
    step = max(1, STATES // (len(a) * len(precisions)))
    for tile in pair_tiles(p, rows_within(tile_rows, z.shape[1])):
        parents, local = np.unique(p[tile], return_inverse=True)
        points, own_pairs = z[parents], local.reshape(-1, 2)
        lists = index.search(z, points, parents, settings)
        bounded &= lists.bounded
        for start in range(0, len(own_pairs), step):
            part = slice(start, start + step)
            geometry = Geometry.of(points, own_pairs[part], a, interpolation)
            reading = _read(
                Reading(
                    latents,
                    points,
                    parents,
                    lists,
                    own_pairs[part],
                    geometry,
                    precisions,
                    settings.delta / 2,
                    _horizons(settings, len(z)),
                    max(2, tile_rows),
                    tile_latents,
                ),
                settings,
            )
            scores = reading.scores()
            for name, array in out.items():
                array[tile][part] = getattr(scores, name)
    return BoundedScores(**out, bounded=bounded)


def approximate_points(
    train: ArrayLike,
    points: ArrayLike,
    sigmas: Sequence[float] | Array,
    *,
    approximation: Approximation | None = None,
    index: LatentIndex | None = None,
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> BoundedPoints:
    """`score_points` approximately, float64[M, S]; the near field of a point is its own list. Raises as that does."""
    settings = approximation or Approximation()
    z, x = validate_latents(train), checked_points(points, train)
    check_settings("faiss", np.float32, "linear", tile_rows, tile_latents)
    precisions = precisions_of(sigmas)
    latents = OrderedLatents.of(z, settings.seed)
    index = _index_over(z, index, settings, latents)
    out = np.empty((3, len(x), len(precisions)))
    bounded = True
    step = min(rows_within(tile_rows, z.shape[1]), max(1, STATES // len(precisions)))
    for start in range(0, len(x), step):
        tile = slice(start, min(start + step, len(x)))
        m = tile.stop - tile.start
        nobody = np.full(m, -1)
        lists = index.search(z, x[tile], nobody, settings)
        bounded &= lists.bounded
        itself = Geometry(Mix.itself(m), np.zeros(m), np.zeros((m, 2)))
        reading = Reading(
            latents,
            x[tile],
            nobody,
            lists,
            np.repeat(np.arange(m)[:, None], 2, axis=1),
            itself,
            precisions,
            settings.delta / 2,
            _horizons(settings, len(z)),
            tile_rows,
            tile_latents,
        )
        for sums, target in zip(_read(reading, settings).others(), out, strict=True):
            target[tile] = log_mean(sums, len(z))[:, 0]
    return BoundedPoints(out[0], out[1], out[2], bounded)


def _index_over(
    train: NDArray[np.floating], index: LatentIndex | None, settings: Approximation, latents: OrderedLatents
) -> LatentIndex:
    if latents.train.shape != train.shape:
        raise ConfigError(f"latents= are {latents.train.shape} numbers, the training latents {train.shape}")
    if index is None:
        return LatentIndex.build(train, settings, latents.frame)
    index.check(train)
    return index


def _read(reading: Reading, settings: Approximation) -> Reading:
    m = min(settings.sample, len(reading.latents.train))
    everything = np.arange(reading.shape[0] * reading.shape[1])
    for end in np.unique(np.ceil(LOOKS * m).astype(int)):
        reading.read(int(end), everything)
    return reading


def _horizons(settings: Approximation, n: int) -> Array:
    """Latents that are in the end read: the whole sample but what its first look taught."""
    return np.array([min(settings.sample, n) * (1 - LOOKS[0])])
