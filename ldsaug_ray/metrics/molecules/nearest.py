"""SNN: the mean Tanimoto similarity of each molecule to the nearest of the test molecules."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import fingerprints, measure_of_molecules, parsed, similarities
from ldsaug_ray.metrics.record import Reading


def _taken(sample: Sample) -> Reading:
    a, b = (fingerprints(sample.once(parsed(side))) for side in ("features", "reference"))
    nearest = np.concatenate([block.max(1) for block in similarities(a, b)])
    return Reading(float(nearest.mean()), float(nearest.std() / len(nearest) ** 0.5))


SNN = built_in(measure_of_molecules("snn", "SNN", "more", _taken, ("reference",), place=24))
