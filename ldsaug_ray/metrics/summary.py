"""All measures of a set of images at once, as plain numbers for `metrics.json`, tables and MLflow.

A measure that the images at hand do not allow (too few, or all alike) is null, and a note says why; what no measure
could do with is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.balance import Probe, ProbeQuality, attribute_share
from ldsaug_ray.metrics.copies import CELLS, Nearest, measure_copies
from ldsaug_ray.metrics.features import Features
from ldsaug_ray.metrics.frechet import FeatureStatistics, frechet_from_statistics
from ldsaug_ray.metrics.kernel_distance import kernel_distance
from ldsaug_ray.metrics.manifold import prdc

Numbers = dict[str, Any]
Taken = TypeVar("Taken")

IMAGES_A_CELL = 50  # of C_T, in the mean: fewer images get fewer cells than usual
MEASURES = {  # name in metrics.json -> title
    "frechet": "Fréchet distance",
    "kernel_distance": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "sharpness": "sharpness",
    "authenticity": "AuthPct",
    "nearer": "nearer than held-out",
    "c_t": "C_T",
}


def measure_set(
    images: Features, sharpness: ArrayLike, reference: Features, k: int, *, seed: int = 0
) -> tuple[Numbers, list[str]]:
    """Measures of a set with features float32[M, C] against real ones float32[N, C], and notes on them.

    Args:
        images: features of the set.
        sharpness: float[M], of each image.
        reference: features of held-out real images.
        k: neighbours of precision, recall, density and coverage.
        seed: of the kernel distance's subsets.

    Raises:
        InputError: invalid features, or k images or fewer in either set.
    """
    notes: list[str] = []
    manifold = prdc(reference, images, k)
    frechet = frechet_from_statistics(FeatureStatistics.of(images), FeatureStatistics.of(reference))
    numbers: Numbers = {"n": len(images), "frechet": {"value": frechet.distance}}
    kernel, why = _or_reason(lambda: kernel_distance(images, reference, seed=seed))
    numbers["kernel_distance"] = _value(kernel.distance, kernel.standard_error) if kernel else _value(None)
    for name in ("precision", "recall", "density", "coverage"):
        numbers[name] = _value(getattr(manifold, name), manifold.errors[name])
    sharp = np.asarray(sharpness, np.float64)
    numbers["sharpness"] = _value(float(sharp.mean()), float(sharp.std(ddof=1) / len(sharp) ** 0.5))
    for found in (frechet.notes, kernel.notes if kernel else (f"kernel distance: {why}",), manifold.notes):
        notes += found
    return numbers, notes


def measure_copying(
    train: Features, images: Features, reference: Features, *, seed: int = 0
) -> tuple[Numbers, list[str], Nearest | None]:
    """AuthPct, C_T and the probability to lie nearer to a training image than held-out images do; notes; the nearest.

    Raises:
        InputError: invalid features, or dimensions that differ.
    """
    cells = min(CELLS, max(1, min(len(images), len(reference)) // IMAGES_A_CELL))
    copies, why = _or_reason(lambda: measure_copies(train, images, reference, cells=cells, seed=seed))
    if copies is None:
        return {name: _value(None) for name in ("authenticity", "nearer", "c_t")}, [f"copies: {why}"], None
    numbers: Numbers = {
        "authenticity": {"value": copies.authenticity, "held_out": copies.authenticity_held_out},
        "nearer": _value(copies.nearer),
        "c_t": {"value": copies.c_t.value, "cells": cells},
    }
    return numbers, list(copies.c_t.notes), copies.generated


def describe_probe(probe: Probe, quality: ProbeQuality) -> Numbers:
    """What a reader must know of a probe."""
    return {
        "penalty": probe.penalty,
        "labelled": {"with": quality.positives, "without": quality.negatives},
        **{name: asdict(getattr(quality, name)) for name in ("sensitivity", "specificity", "balanced_accuracy")},
    }


def measure_share(found: NDArray[np.bool_], quality: ProbeQuality) -> tuple[Numbers, list[str]]:
    """The share of an attribute by a probe's verdicts bool[M]; or null and why."""
    share, why = _or_reason(lambda: attribute_share(found, quality))
    return (_value(None), [why]) if share is None else ({**_value(share.corrected), **asdict(share)}, [])


def _value(value: float | None, error: float | None = None) -> Numbers:
    return {"value": value} if error is None else {"value": value, "standard_error": error}


def _or_reason(take: Callable[[], Taken]) -> tuple[Taken | None, str]:
    try:
        return take(), ""
    except InputError as e:
        return None, str(e)
