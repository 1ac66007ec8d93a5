"""Uniqueness: distinct canonical SMILES among the valid molecules. It falls with their number: compare at equal n."""

from __future__ import annotations

from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import canonical_forms, measure_of_molecules, parsed
from ldsaug_ray.metrics.record import Reading


def _taken(sample: Sample) -> Reading:
    forms = canonical_forms(sample.once(parsed("features")))
    return Reading(len(set(forms)) / len(forms), more={"valid": len(forms)})


UNIQUENESS = built_in(measure_of_molecules("uniqueness", "uniqueness", "more", _taken, place=21))
