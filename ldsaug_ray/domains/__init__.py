"""Kinds of data: how each is read, checked and shown. A domain is a record in a package of its own, which adds it."""

from ldsaug_ray.common.registry import import_all
from ldsaug_ray.domains.base import DOMAINS, Domain, Unusable, domain_of

import_all(__name__, __path__)
