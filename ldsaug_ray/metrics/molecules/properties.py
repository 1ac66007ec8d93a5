"""Wasserstein distances to the test molecules of logP (Wildman & Crippen 1999), QED (Bickerton et al. 2012), weight."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import measure_of_molecules, parsed
from ldsaug_ray.metrics.record import Reading

PROPERTIES = [  # name, title, RDKit's module and function of a molecule: log10 of a partition coefficient, 0..1, g/mol
    ("log_p", "logP distance", "rdkit.Chem.Crippen", "MolLogP"),
    ("qed", "QED distance", "rdkit.Chem.QED", "qed"),
    ("weight", "weight distance", "rdkit.Chem.Descriptors", "MolWt"),
]


def _taken(module: str, function: str, sample: Sample) -> Reading:
    from scipy.stats import wasserstein_distance

    of = getattr(import_module(module), function)
    a, b = ([of(m) for m in sample.once(parsed(side))] for side in ("features", "reference"))
    return Reading(float(wasserstein_distance(a, b)))


for _place, (_name, _title, _module, _function) in enumerate(PROPERTIES, 26):
    _take = partial(_taken, _module, _function)
    built_in(measure_of_molecules(_name, _title, "less", _take, ("reference",), place=_place))
