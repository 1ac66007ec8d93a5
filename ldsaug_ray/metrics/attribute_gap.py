"""How far the share of an attribute among images is from its share among test images: the mean over the attributes."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.metrics.base import MeasureOfRun, built_in
from ldsaug_ray.metrics.record import Evaluated


def attribute_gap(found: Evaluated, name: str) -> float | None:
    """Mean |share in the set - share in test|, of labels with many values their total variation distance; None without
    attributes, or where one has no share."""
    gaps = []
    for attribute in found.attributes.values():
        here, real = attribute.shares[name].value, attribute.shares["test"].value
        if here is None or real is None:
            return None
        gaps.append(abs(here - real))
    return float(np.mean(gaps)) if gaps else None


ATTRIBUTE_GAP = built_in(
    MeasureOfRun(name="attribute_gap", title="attribute gap", better="less", needs=("attributes",), take=attribute_gap)
)
