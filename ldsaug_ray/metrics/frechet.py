"""Fréchet distance between Gaussians fitted to two sets of features: FID, where the features are Inception's.

    d² = |μ_a − μ_b|² + Tr Σ_a + Tr Σ_b − 2 Tr √(Σ_a Σ_b)          (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

With symmetric roots Σ = R Rᵀ, Tr √(Σ_a Σ_b) is the sum of the singular values of R_aᵀ R_b. The roots come from
symmetric eigendecompositions, so nothing is complex, and no matrix root of a singular product is needed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.features import Features, checked_features, same_dimension

Array = NDArray[np.float64]

BLOCK_BYTES = 16 * 2**20  # of float64 rows that are added up at a time
CURVE_POINTS = 15  # sizes at which Chong & Forsyth (2020) measure


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
    def of_chunks(cls, chunks: Iterable[ArrayLike], name: str = "the features") -> FeatureStatistics:
        """Statistics of features that come in chunks [n_i, C]; equal to `of` all of them up to rounding.

        Raises:
            InputError: as `of`, or there is no chunk, or their dimensions differ.
        """
        return cls.merge(cls.of(chunk, name) for chunk in chunks)

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
        """C."""
        return len(self.mean)

    @property
    def covariance(self) -> Array:
        """float64[C, C], divided by n − 1, as FID's usual code does. Raises InputError for a single image."""
        if self.n < 2:
            raise InputError("a covariance needs at least 2 images; found 1")
        return self.scatter / (self.n - 1)

    def save(self, location: Location) -> None:
        """Write an uncompressed .npz (n, mean, scatter), atomically. Raises StorageError where it cannot be written."""
        out = io.BytesIO()
        np.savez(out, n=np.int64(self.n), mean=self.mean, scatter=self.scatter)
        location.write_bytes(out.getvalue())

    @classmethod
    def load(cls, location: Location) -> FeatureStatistics:
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            StorageError: the file cannot be read.
            InputError: it does not hold such statistics, or is damaged.
        """
        try:
            with np.load(io.BytesIO(location.read_bytes()), allow_pickle=False) as file:
                n, mean, scatter = file["n"], file["mean"], file["scatter"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as e:
            raise InputError(
                f"{location.uri}: not feature statistics, or damaged ({e}); delete it and measure again"
            ) from None
        shaped = n.shape == () and n.dtype == np.int64 and mean.ndim == 1 and scatter.shape == mean.shape * 2
        if not (shaped and n >= 1 and mean.dtype == scatter.dtype == np.float64):
            raise InputError(
                f"{location.uri}: not feature statistics (n {n.dtype}{list(n.shape)}, mean {mean.dtype}"
                f"{list(mean.shape)}, scatter {scatter.dtype}{list(scatter.shape)})"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise InputError(f"{location.uri}: statistics that are not finite; delete it and measure again")
        return cls(int(n), mean, scatter)


@dataclass(frozen=True)
class Frechet:
    """A Fréchet distance and what it was taken from; `notes` are sentences for the reader of the number."""

    distance: float
    n_a: int
    n_b: int
    dimension: int
    notes: tuple[str, ...] = ()


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Fréchet distance of two sets of features, float[N, C] and float[M, C] (spec section 5); symmetric, at least 0.

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
    _same(a, b)
    return Frechet(_distance(a, b, _root(b)), a.n, b.n, a.dimension, bias_notes(a.n, b.n, a.dimension))


def bias_notes(n_a: int, n_b: int, dimension: int) -> tuple[str, ...]:
    """What to know of a Fréchet distance from so few images; nothing where both sets outnumber the dimensions."""
    if min(n_a, n_b) > dimension:
        return ()
    return (
        f"Fréchet distance of {n_a:,} and {n_b:,} images in {dimension:,} dimensions: a covariance needs more images "
        "than dimensions. The value is biased upwards, real images against real images too: compare only values of "
        "equal n, and look at the kernel distance, which has no such bias.",
    )


@dataclass(frozen=True)
class FrechetInfinity:
    """A Fréchet distance extrapolated to infinitely many images.

    distance: the intercept; standard_error: of the intercept, by least squares (the sizes share images, so that it is
    rather too small); sizes: int64[P] and distances: float64[P], the curve; slope: of the distance over 1/n.
    """

    distance: float
    standard_error: float
    slope: float
    sizes: NDArray[np.int64]
    distances: Array
    notes: tuple[str, ...] = ()


def frechet_infinity(
    features: ArrayLike,
    reference: ArrayLike | FeatureStatistics,
    *,
    points: int = CURVE_POINTS,
    seed: int = 0,
) -> FrechetInfinity:
    """FID∞ of Chong & Forsyth (2020), section 3: the intercept of a line through the distances over 1/n.

    Subsets are drawn at `points` sizes, evenly spaced from a tenth of n (the paper's 5,000 of 50,000), or from twice
    the dimension where that is more and at most half of n: below the dimension the bias is not linear in 1/n.
    Where `reference` are features, its subset has the same size, and the bias of both sets is extrapolated away. Where
    it is statistics it stays whole, as in the paper, and so does its bias. An intercept may lie below 0.

    Raises:
        InputError: invalid features, dimensions that differ, or fewer than 20 images.
        ValueError: fewer than 3 points.
    """
    if points < 3:
        raise ValueError(f"points must be at least 3, got {points}")
    x, y = checked_features(features, "the features", 20, "extrapolation"), None
    if not isinstance(reference, FeatureStatistics):
        y = checked_features(reference, "the reference", 20, "extrapolation")
        x, y = same_dimension(x, y, ("the features", "the reference"))
    whole = reference if isinstance(reference, FeatureStatistics) else None
    if whole is not None and whole.dimension != x.shape[1]:
        raise InputError(f"the features have {x.shape[1]} dimensions, the reference {whole.dimension}")
    most = min(len(x), len(y)) if y is not None else len(x)
    least = max(most // 10, min(2 * x.shape[1], most // 2), 2)
    sizes = np.unique(np.linspace(least, most, points).astype(np.int64))
    rng, root = np.random.default_rng(seed), _root(whole) if whole is not None else None
    distances = np.empty(len(sizes))
    for at, size in enumerate(sizes):
        part = _drawn(x, size, rng)
        other = _drawn(y, size, rng) if y is not None else whole
        assert other is not None
        distances[at] = _distance(part, other, root if root is not None else _root(other))
    inverse = 1 / sizes
    design = np.stack([np.ones(len(sizes)), inverse - inverse.mean()], axis=1)
    (level, slope), *_ = np.linalg.lstsq(design, distances, rcond=None)
    rest = distances - design @ (level, slope)
    variance = float(rest @ rest) / max(len(sizes) - 2, 1)
    spread = float(((inverse - inverse.mean()) ** 2).sum())
    error = (variance * (1 / len(sizes) + inverse.mean() ** 2 / spread)) ** 0.5
    notes = []
    if sizes[0] <= x.shape[1]:
        notes.append(
            f"Extrapolated from subsets of {sizes[0]:,} to {most:,} images in {x.shape[1]:,} dimensions: below the "
            "dimension the bias is not linear in 1/n, and the intercept is a rough guide."
        )
    if whole is not None:
        notes.append(f"The bias of the reference's own {whole.n:,} images is not extrapolated away.")
    return FrechetInfinity(
        float(level - slope * inverse.mean()), float(error), float(slope), sizes, distances, tuple(notes)
    )


def _drawn(features: Features, size: int, rng: np.random.Generator) -> FeatureStatistics:
    return FeatureStatistics.of(features[np.sort(rng.choice(len(features), size, replace=False))])


def _same(a: FeatureStatistics, b: FeatureStatistics) -> None:
    if a.dimension != b.dimension:
        raise InputError(f"statistics of {a.dimension} and of {b.dimension} dimensions: take both from one extractor")


def _root(s: FeatureStatistics) -> Array:
    """Rows float64[rank, C] with rowsᵀ rows = covariance; directions whose variance is rounding are left out."""
    values, vectors = np.linalg.eigh(s.covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root: Array = np.sqrt(values[kept])[:, None] * vectors.T[kept]
    return root


def _distance(a: FeatureStatistics, b: FeatureStatistics, root_b: Array) -> float:
    product = _root(a) @ root_b.T
    overlap = float(np.linalg.svd(product, compute_uv=False).sum()) if product.size else 0.0
    gap = a.mean - b.mean
    spread: Sequence[float] = (float(np.trace(a.covariance)), float(np.trace(b.covariance)))
    return max(0.0, float(gap @ gap) + spread[0] + spread[1] - 2 * overlap)
