"""Measures of molecules as MOSES defines them (Polykovskiy et al. 2020, arXiv:1811.12823), a file each."""

from ldsaug_ray.common.registry import import_all

import_all(__name__, __path__)
