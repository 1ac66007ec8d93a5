"""Kernel distance between two sets of features: KID, where the features are Inception's. Unbiased at any n.

    MMD² = mean over i ≠ j of k(a_i, a_j) + the same of b − 2 mean k(a_i, b_j),   k(x, y) = (x·y / C + 1)³

(Bińkowski et al. 2018, section 4 and eq. 4), averaged over random subsets. It may fall below 0, as an unbiased
estimate of 0 must.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.metrics.base import Measure, Sample, built_in
from ldsaug_ray.metrics.features import Features, all_equal, checked_features, same_dimension
from ldsaug_ray.metrics.record import Reading

Array = NDArray[np.float64]

SUBSETS, SUBSET_SIZE = 100, 1000  # clean-fid's, and those of the paper's code


@dataclass(frozen=True)
class KernelDistance:
    """The distance, its standard error over fresh sets of images, and what it was taken from."""

    distance: float
    standard_error: float
    subsets: int
    subset_size: int
    n_a: int
    n_b: int
    notes: tuple[str, ...] = ()


def kernel_distance(
    features_a: ArrayLike,
    features_b: ArrayLike,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> KernelDistance:
    """Mean unbiased MMD² over seeded subsets of features float[N, C] and float[M, C], in float64.

    A subset holds at most half of the smaller set: subsets that are nearly the whole set hardly differ, and their
    spread would say nothing. What they share counts in the standard error. For a statistic that is a mean over images,
    subsets of a share r of the images have variance s² about each other and s² / (1 − r) about the truth, and two of
    them are correlated by r; so the mean of J has variance s² (1/J + (1 − 1/J) r) / (1 − r). Where the two sets are
    nearly alike the MMD varies less than such a mean, and the standard error is too large rather than too small.

    Raises:
        InputError: invalid features, dimensions that differ, or fewer than 4 images in a set.
        ValueError: fewer than 2 subsets, or a subset of fewer than 2 images.
    """
    if subsets < 2 or subset_size < 2:
        raise ValueError(f"subsets and subset_size must be at least 2, got {subsets} and {subset_size}")
    names = "features_a", "features_b"
    a, b = (
        checked_features(x, name, 4, "kernel distance") for x, name in zip((features_a, features_b), names, strict=True)
    )
    a, b = same_dimension(a, b, names)
    fewest = min(len(a), len(b))
    size = min(subset_size, fewest // 2)
    values = subset_distances(a, b, *draw_subsets(len(a), len(b), subsets, size, seed))
    share = size / fewest
    variance = values.var(ddof=1) * (1 / subsets + (1 - 1 / subsets) * share) / (1 - share)
    notes = tuple(
        f"{name}: all {len(x):,} images have the same features"
        for x, name in ((a, names[0]), (b, names[1]))
        if all_equal(x)
    )
    return KernelDistance(float(values.mean()), float(variance**0.5), subsets, size, len(a), len(b), notes)


def draw_subsets(n_a: int, n_b: int, subsets: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the two sets in each subset, int64[subsets, size] each, without replacement within a subset."""
    rng = np.random.default_rng(seed)
    draw = [[rng.choice(n, size, replace=False) for n in (n_a, n_b)] for _ in range(subsets)]
    return np.stack([a for a, _ in draw]), np.stack([b for _, b in draw])


def subset_distances(a: Features, b: Features, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]) -> Array:
    """Unbiased MMD², float64[J], of each subset of rows int64[J, m] of features a [N, C] and b [M, C]."""
    out, m = np.empty(len(rows_a)), rows_a.shape[1]
    for at, (ra, rb) in enumerate(zip(rows_a, rows_b, strict=True)):
        x, y = a[ra].astype(np.float64), b[rb].astype(np.float64)
        xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
        within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
        out[at] = within / (m * (m - 1)) - 2 * xy.mean()
    return out


def _kernel(x: Array, y: Array) -> Array:
    k: Array = x @ y.T
    k /= x.shape[1]
    k += 1
    return k * k * k


def _taken(sample: Sample) -> Reading:
    found = kernel_distance(sample.features, sample.reference, seed=sample.seed)
    return Reading(found.distance, found.standard_error, notes=found.notes)


KERNEL_DISTANCE = built_in(
    Measure(name="kernel_distance", title="kernel distance", better="less", needs=("reference",), place=2, take=_taken)
)
