"""Internal diversity (IntDiv, p = 1): 1 − the mean Tanimoto similarity of all pairs, each with itself included."""

from __future__ import annotations

from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import fingerprints, measure_of_molecules, parsed, similarities
from ldsaug_ray.metrics.record import Reading


def _taken(sample: Sample) -> Reading:
    bits = fingerprints(sample.once(parsed("features")))
    return Reading(1 - sum(float(block.sum()) for block in similarities(bits, bits)) / len(bits) ** 2)


DIVERSITY = built_in(measure_of_molecules("diversity", "internal diversity", "more", _taken, place=23))
