"""Wasserstein distances to the test molecules of logP (Wildman & Crippen 1999), QED (Bickerton et al. 2012), weight."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ldsaug_ray.metrics.base import Sample, built_in
from ldsaug_ray.metrics.molecules.base import measure_of_molecules, parsed
from ldsaug_ray.metrics.record import Reading


def log_p(molecule: Any) -> float:
    """Of a `Mol`: log10 of the octanol-water partition coefficient, by Crippen's contributions."""
    from rdkit.Chem.Crippen import MolLogP

    return float(MolLogP(molecule))


def qed(molecule: Any) -> float:
    """Of a `Mol`: quantitative estimate of drug-likeness, 0..1."""
    from rdkit.Chem.QED import qed

    return float(qed(molecule))


def weight(molecule: Any) -> float:
    """Of a `Mol`: g/mol."""
    from rdkit.Chem.Descriptors import MolWt

    return float(MolWt(molecule))


def _taken(of: Callable[[Any], float], sample: Sample) -> Reading:
    from scipy.stats import wasserstein_distance

    a, b = ([of(m) for m in sample.once(parsed(side))] for side in ("features", "reference"))
    return Reading(float(wasserstein_distance(a, b)))


for _place, (_name, _title, _of) in enumerate(
    [("log_p", "logP distance", log_p), ("qed", "QED distance", qed), ("weight", "weight distance", weight)], 26
):
    built_in(measure_of_molecules(_name, _title, "less", partial(_taken, _of), ("reference",), place=_place))
