"""What the measures of molecules share: SMILES parsed once, canonical forms, fingerprints and their similarities.

As in MOSES a set's invalid SMILES count for validity alone; everything else is taken of what is left, duplicates too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ldsaug_ray.domains.molecules.chemistry import molecule, rdkit
from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import Measure, Sample
from ldsaug_ray.metrics.record import Reading

ITEMS = "molecules"  # of a sample: what these measures need
RADIUS, BITS = 2, 1024  # of Morgan fingerprints, as MOSES takes them
BLOCK = 1024  # fingerprints compared at a time

Molecules = tuple[Any, ...]
Fingerprints = NDArray[np.float32]


def parsed(side: str) -> Callable[[Sample], Molecules]:
    """Of a sample the valid molecules of `features` (those that are measured), `reference` or `train`: `Mol` each.

    Raises:
        InputError: none is valid.
    """
    return _PARSED[side]


def _parse(side: str, sample: Sample) -> Molecules:
    found = tuple(m for text in sample.items[ITEMS][side].tolist() if (m := molecule(text.decode())) is not None)
    if not found:
        raise InputError(f"none of the {len(sample.items[ITEMS][side])} molecules is valid")
    return found


_PARSED = {side: partial(_parse, side) for side in ("features", "reference", "train")}


def canonical_forms(molecules: Iterable[Any]) -> list[str]:
    """RDKit's canonical SMILES of each."""
    to_smiles = rdkit().Chem.MolToSmiles
    return [to_smiles(m) for m in molecules]


def fingerprints(molecules: Molecules) -> Fingerprints:
    """float32[N, 1024] of 0 and 1: Morgan fingerprints of radius 2 (Rogers & Hahn 2010)."""
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    bits = GetMorganGenerator(radius=RADIUS, fpSize=BITS).GetFingerprintAsNumPy
    return np.stack([bits(m) for m in molecules]).astype(np.float32)


def similarities(a: Fingerprints, b: Fingerprints) -> Iterator[NDArray[np.float64]]:
    """Tanimoto's |a ∩ b| / |a ∪ b| of all pairs, float64[up to 1024, len(b)] at a time; 1 of two empty ones."""
    sizes = b.sum(1, dtype=np.float64)
    for start in range(0, len(a), BLOCK):
        block = a[start : start + BLOCK]
        common = (block @ b.T).astype(np.float64)  # whole numbers up to 1024: exact
        union = block.sum(1, dtype=np.float64)[:, None] + sizes - common
        yield np.divide(common, union, out=np.ones_like(common), where=union > 0)


def measure_of_molecules(
    name: str,
    title: str,
    better: str,
    take: Callable[[Sample], Reading],
    needs: tuple[str, ...] = (),
    place: int = 100,
) -> Measure:
    """A measure that needs the molecules themselves. Invalid ones are for `take` to leave out."""
    way: Any = better
    return Measure(name=name, title=title, better=way, needs=(ITEMS, *needs), place=place, take=take)


def share(found: int, of: int) -> Reading:
    """A share with its binomial standard error, and Wilson's 95 % limits, which stay within 0 and 1."""
    p, limits = found / of, binomtest(found, of).proportion_ci(method="wilson")
    return Reading(p, (p * (1 - p) / of) ** 0.5, {"low": float(limits.low), "high": float(limits.high)})
