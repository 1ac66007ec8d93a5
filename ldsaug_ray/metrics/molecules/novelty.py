"""Novelty: distinct valid molecules that are not among the training molecules."""

from __future__ import annotations

from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import ITEMS, canonical_forms, measure_of_molecules, parsed, share
from ldsaug_ray.metrics.record import Reading


def _taken(sample: Sample) -> Reading:
    forms = set(canonical_forms(sample.once(parsed("features"))))
    # as they are stored: the domain has made them canonical
    known = {text.decode() for text in sample.items[ITEMS]["train"].tolist()}
    return share(len(forms - known), len(forms))


NOVELTY = built_in(measure_of_molecules("novelty", "novelty", "more", _taken, ("train",), place=22))
