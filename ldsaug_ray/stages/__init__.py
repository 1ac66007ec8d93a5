"""One module a stage: read, map, write, account. Each declares itself, so that a new one needs no edit elsewhere."""

from ldsaug_ray.common.registry import import_all

import_all(__name__, __path__)
