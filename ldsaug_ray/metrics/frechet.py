"""Fréchet distance between Gaussians fitted to two sets of features: FID, where the features are Inception's.

    d² = |μ_a − μ_b|² + Tr Σ_a + Tr Σ_b − 2 Tr √(Σ_a Σ_b)          (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

With symmetric roots Σ = R Rᵀ, Tr √(Σ_a Σ_b) is the sum of the singular values of R_aᵀ R_b. The roots come from
symmetric eigendecompositions, so nothing is complex, and no matrix root of a singular product is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import Measure, Sample, built_in
from ldsaug_ray.metrics.features import Features, checked_features
from ldsaug_ray.metrics.record import Reading

Array = NDArray[np.float64]

BLOCK_BYTES = 16 * 2**20  # of float64 rows that are added up at a time


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What a Fréchet distance needs of a set of features: n, mean float64[C], scatter float64[C, C].

    The scatter is the sum of outer products of differences from the mean. Merging is that of Chan, Golub & LeVeque
    (1979): no squares of large means are subtracted, so an offset of the features costs no digits.
    """

    n: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, features: ArrayLike, name: str = "the features") -> FeatureStatistics:
        """Statistics of features float[N, C], added in blocks of fixed size.

        Raises:
            InputError: not an array of finite numbers with at least one row.
        """
        x = checked_features(features, name)
        step = max(1, BLOCK_BYTES // (8 * x.shape[1]))
        parts = []
        for start in range(0, len(x), step):
            block = x[start : start + step].astype(np.float64)
            mean = block.mean(axis=0)
            block -= mean
            parts.append(cls(len(block), mean, block.T @ block))
        return cls.merge(parts)

    @classmethod
    def merge(cls, parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
        """Statistics of the union, merged one after another in the order given: the same order gives the same bits.

        Raises:
            InputError: there are none, or their dimensions differ.
        """
        n, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
        for part in parts:
            if n == 0:
                n, mean, scatter = part.n, part.mean.copy(), part.scatter.copy()
                continue
            if len(part.mean) != len(mean):
                raise InputError(
                    f"features of {len(mean)} and {len(part.mean)} dimensions: take all from the same extractor"
                )
            total, gap = n + part.n, part.mean - mean
            scatter += part.scatter
            scatter += np.outer(gap, gap * (n * part.n / total))
            mean += gap * (part.n / total)
            n = total
        if n == 0:
            raise InputError("there are no features: no image was left to measure")
        return cls(n, mean, scatter)

    @property
    def dimension(self) -> int:
        return len(self.mean)

    @property
    def covariance(self) -> Array:
        """float64[C, C], divided by n − 1, as FID's usual code does. Raises InputError for a single image."""
        if self.n < 2:
            raise InputError("a covariance needs at least 2 images; found 1")
        return self.scatter / (self.n - 1)


@dataclass(frozen=True)
class Frechet:
    """A Fréchet distance and what it was taken from; `notes` are sentences for the reader of the number."""

    distance: float
    n_a: int
    n_b: int
    dimension: int
    notes: tuple[str, ...] = ()


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Fréchet distance of two sets of features, float[N, C] and float[M, C]; symmetric, at least 0.

    The notes that belong to it are in `frechet_from_statistics`.

    Raises:
        InputError: invalid features, dimensions that differ, or fewer than two images in a set.
    """
    a = FeatureStatistics.of(features_a, "features_a")
    return frechet_from_statistics(a, FeatureStatistics.of(features_b, "features_b")).distance


def frechet_from_statistics(a: FeatureStatistics, b: FeatureStatistics) -> Frechet:
    """Fréchet distance of two sets from their statistics.

    Rounding may leave a hair below 0 where the sets are the same; that is 0.

    Raises:
        InputError: dimensions that differ, or fewer than two images in a set.
    """
    if a.dimension != b.dimension:
        raise InputError(f"statistics of {a.dimension} and of {b.dimension} dimensions: take both from one extractor")
    product = _root(a) @ _root(b).T
    overlap = float(np.linalg.svd(product, compute_uv=False).sum()) if product.size else 0.0
    gap = a.mean - b.mean
    distance = float(gap @ gap) + float(np.trace(a.covariance)) + float(np.trace(b.covariance)) - 2 * overlap
    return Frechet(max(0.0, distance), a.n, b.n, a.dimension, bias_notes(a.n, b.n, a.dimension))


def frechet_terms(features_a: ArrayLike, features_b: ArrayLike) -> tuple[Array, Array]:
    """How the distance moves, to first order, with the weight of each image: float64[N] and float64[M].

    With y = x − μ_a and the optimal map T from Σ_a to Σ_b it is 2 (μ_a − μ_b)·y + (y·y − yᵀ T y) n / (n − 1). Where n
    is below the dimension, or the sets are nearly alike, intervals from these terms are longer than need be, measured
    up to 1.7 times.

    Raises:
        InputError: as `frechet_distance`.
    """
    x, y = checked_features(features_a, "features_a"), checked_features(features_b, "features_b")
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(y)
    if a.dimension != b.dimension:
        raise InputError(f"features of {a.dimension} and of {b.dimension} dimensions: take both from one extractor")
    roots = _root(a), _root(b)
    left, overlap, right = np.linalg.svd(roots[0] @ roots[1].T, full_matrices=False)
    gap = a.mean - b.mean
    return (
        _moves(x, a.mean, roots[0], left * overlap**0.5, 2 * gap),
        _moves(y, b.mean, roots[1], right.T * overlap**0.5, -2 * gap),
    )


def _moves(x: Features, mean: Array, root: Array, half: Array, slope: Array) -> Array:
    """slope·y + (y·y − |halfᵀ c|²) n / (n − 1) with y = x − mean = rootᵀ c, in blocks."""
    out, step = np.empty(len(x)), max(1, BLOCK_BYTES // (8 * x.shape[1]))
    inverse = (root / (root * root).sum(axis=1, keepdims=True)).T @ half
    for start in range(0, len(x), step):
        y = x[start : start + step].astype(np.float64) - mean
        curve = (y * y).sum(axis=1) - ((y @ inverse) ** 2).sum(axis=1)
        out[start : start + step] = y @ slope + curve * (len(x) / (len(x) - 1))
    return out


def bias_notes(n_a: int, n_b: int, dimension: int) -> tuple[str, ...]:
    """What to know of a Fréchet distance from so few images; nothing where both sets outnumber the dimensions."""
    if min(n_a, n_b) > dimension:
        return ()
    return (
        f"Fréchet distance of {n_a:,} and {n_b:,} images in {dimension:,} dimensions: a covariance needs more images "
        "than dimensions. The value is biased upwards, real images against real images too: compare only values of "
        "equal n, and look at the kernel distance, which has no such bias.",
    )


def _root(s: FeatureStatistics) -> Array:
    """Rows float64[rank, C] with rowsᵀ rows = covariance; directions whose variance is rounding are left out."""
    values, vectors = np.linalg.eigh(s.covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root: Array = np.sqrt(values[kept])[:, None] * vectors.T[kept]
    return root


def _taken(sample: Sample) -> Reading:
    found = frechet_from_statistics(FeatureStatistics.of(sample.features), FeatureStatistics.of(sample.reference))
    return Reading(found.distance, notes=found.notes)


def _terms(sample: Sample) -> Mapping[str, Array]:
    of_features, of_reference = frechet_terms(sample.features, sample.reference)
    return {"features": of_features, "reference": of_reference}


FRECHET = built_in(
    Measure(
        name="frechet",
        title="Fréchet distance",
        better="less",
        needs=("reference",),
        place=1,
        take=_taken,
        required=True,
        terms=_terms,
    )
)
