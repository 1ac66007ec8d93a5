"""Kinds of codec, a file each, by the setting `vae.kind`: settings, and how a model is made."""

from ldsaug_ray.common.registry import import_all
from ldsaug_ray.models.codecs.base import CODECS, CodecKind

import_all(__name__, __path__)
