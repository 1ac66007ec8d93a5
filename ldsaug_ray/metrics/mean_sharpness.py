"""Measure `sharpness`: its mean over a set of images (`domains/images/quality.py` has how it is taken)."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.metrics.base import Measure, Sample, built_in
from ldsaug_ray.metrics.record import Reading


def _taken(sample: Sample) -> Reading:
    values = np.asarray(sample.quality["sharpness"], np.float64)
    return Reading(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


# more of it is what a search seeks, but noise is sharp too: no table says that more is better
SHARPNESS = built_in(
    Measure(
        name="sharpness",
        title="sharpness",
        better="more",
        agreed=False,
        needs=("sharpness",),
        place=7,
        take=_taken,
        terms=lambda sample: {"features": sample.quality["sharpness"]},
    )
)
