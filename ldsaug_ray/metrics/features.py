"""What the measures accept as features: float[N, C], one row an image, every value finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError

Features = NDArray[np.floating[Any]]


def checked_features(features: ArrayLike, name: str, least: int = 1, why: str = "") -> Features:
    """Features [N, C] as a contiguous array; float32 and float64 keep their type, other real numbers become float64.

    Args:
        least: rows needed.
        why: what needs them, for the message.

    Raises:
        InputError: not two-dimensional, not real numbers, fewer than `least` rows, or a value that is not finite.
    """
    try:
        x = np.asarray(features)
    except ValueError as e:  # rows of different lengths
        raise InputError(f"{name} must be an array [images, dimensions]; {e}") from None
    if x.ndim != 2 or x.shape[1] < 1:
        raise InputError(f"{name} must be an array [images, dimensions]; found shape {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise InputError(f"{name} must be real numbers; found {x.dtype}")
    if len(x) < least:
        raise InputError(f"{name}: {len(x)} images; {why or 'this measure'} needs at least {least}")
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise InputError(
            f"{name}: {int(bad.sum())} of {len(x)} rows hold NaN or infinity (first: row {int(bad.argmax())}); "
            "check the extractor and the images"
        )
    return np.ascontiguousarray(x)


def same_dimension(a: Features, b: Features, names: tuple[str, str]) -> tuple[Features, Features]:
    """Both in one type, float64 unless both are float32.

    Raises:
        InputError: their dimensions differ, so that they come from different extractors.
    """
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"{names[0]} have {a.shape[1]} dimensions, {names[1]} {b.shape[1]}: take both from the same extractor"
        )
    kind = np.result_type(a, b)
    return a.astype(kind, copy=False), b.astype(kind, copy=False)


def all_equal(features: Features) -> bool:
    """Whether every row is the same."""
    return bool((features == features[0]).all())
