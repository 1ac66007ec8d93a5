"""Validity: the share of SMILES that RDKit reads as molecules."""

from __future__ import annotations

from ldsaug_ray.domains.molecules.chemistry import molecule
from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import ITEMS, measure_of_molecules, share
from ldsaug_ray.metrics.record import Reading


def _taken(sample: Sample) -> Reading:
    texts = sample.items[ITEMS]["features"].tolist()
    return share(sum(molecule(text.decode()) is not None for text in texts), len(texts))


VALIDITY = built_in(measure_of_molecules("validity", "validity", "more", _taken, place=20))
