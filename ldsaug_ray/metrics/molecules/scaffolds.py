"""Scaffold similarity (Scaff): cosine of the counts of Bemis-Murcko scaffolds, of at least two rings, in two sets."""

from __future__ import annotations

from collections import Counter

from ldsaug_ray.domains.molecules.chemistry import rdkit
from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import Molecules, measure_of_molecules, parsed
from ldsaug_ray.metrics.record import Reading

RINGS = 2  # at least


def scaffolds(molecules: Molecules) -> Counter[str]:
    """How often each scaffold occurs (Bemis & Murcko 1996), as canonical SMILES."""
    from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

    found = map(GetScaffoldForMol, molecules)
    return Counter(rdkit().Chem.MolToSmiles(s) for s in found if s.GetRingInfo().NumRings() >= RINGS)


def _taken(sample: Sample) -> Reading:
    a, b = (scaffolds(sample.once(parsed(side))) for side in ("features", "reference"))
    if not (a and b):
        raise InputError(f"a set has no scaffold of {RINGS} rings")
    lengths = [sum(n * n for n in counts.values()) ** 0.5 for counts in (a, b)]
    return Reading(sum(n * b[s] for s, n in a.items()) / (lengths[0] * lengths[1]))


SCAFFOLDS = built_in(measure_of_molecules("scaffolds", "scaffold similarity", "more", _taken, ("reference",), place=25))
