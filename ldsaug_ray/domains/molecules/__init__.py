"""Molecules as SMILES."""

from ldsaug_ray.domains.molecules.domain import Molecules
