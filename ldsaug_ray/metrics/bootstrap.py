"""The bootstrap: means over seeds of an experiment and their paired differences; means over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ldsaug_ray.errors import InputError

Array = NDArray[np.float64]

RESAMPLES = 10_000
FEW = 8  # below, a percentile interval is visibly too short


@dataclass(frozen=True)
class Mean:
    """Mean and standard error of n values; the standard error is None for a single value."""

    mean: float
    standard_error: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of a − b over pairs, with two intervals at `level`.

    low, high: percentile bootstrap over the pairs; t_low, t_high: Student's, which assumes normal differences and is
    honest for few of them. None where there is a single pair.
    """

    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    t_low: float | None
    t_high: float | None
    n: int
    level: float
    notes: tuple[str, ...] = ()


def mean_and_error(values: ArrayLike, name: str = "the values") -> Mean:
    """Mean and standard error, s / √n with n − 1 in s, of values float[n].

    Raises:
        InputError: no value, or one that is not finite.
    """
    x = _checked(values, name)
    return Mean(float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else None, len(x))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    name: str = "the difference",
) -> Difference:
    """The mean of a − b, float[n] each, value by value: the same seed on both sides.

    The bootstrap resamples pairs (Efron & Tibshirani 1993, section 13.3). With n values it cannot reach beyond their
    range, which for 3 of them is far from 95 %; the notes say so.

    Raises:
        InputError: a and b differ in length, are empty, or hold a value that is not finite.
        ValueError: a level outside 0..1, or fewer than 100 resamples.
    """
    if not 0 < level < 1 or resamples < 100:
        raise ValueError(f"level must lie between 0 and 1 and resamples be at least 100, got {level} and {resamples}")
    x, y = _checked(a, f"{name}, first side"), _checked(b, f"{name}, second side")
    if len(x) != len(y):
        raise InputError(
            f"{name}: {len(x)} and {len(y)} values; a paired difference needs the same seeds on both sides"
        )
    gaps, n = x - y, len(x)
    mean = mean_and_error(gaps, name)
    if mean.standard_error is None:
        return Difference(mean.mean, None, None, None, None, None, n, level, ("One seed: no interval can be given.",))
    rng = np.random.default_rng(seed)
    means = gaps[rng.integers(0, n, (resamples, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * mean.standard_error
    notes: tuple[str, ...] = ()
    if n < FEW:
        notes = (
            f"{n} seeds: a bootstrap interval cannot leave the range of the {n} differences and is too short; "
            "Student's interval is given beside it.",
        )
    return Difference(
        mean.mean, mean.standard_error, float(low), float(high), mean.mean - reach, mean.mean + reach, n, level, notes
    )


def redrawn_means(values: ArrayLike, *, seed: int = 0, resamples: int = 1000) -> Array:
    """How far the means of values float[K, n] move where n are drawn anew from the n: float64[resamples, K]."""
    x = np.asarray(values, dtype=np.float64)
    rng, n = np.random.default_rng(seed), x.shape[1]
    centred = (x - x.mean(axis=1, keepdims=True)) / n
    return np.stack([centred @ np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)])


def _checked(values: ArrayLike, name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise InputError(f"{name}: a list of at least one number is needed; found shape {list(x.shape)}")
    bad = ~np.isfinite(x)
    if bad.any():
        raise InputError(f"{name}: value {int(bad.argmax())} of {len(x)} is {x[bad][0]}")
    return x
