"""The domain `audio`: clips of one rate and length, decoded by libsndfile, heard and seen in the report."""

from ldsaug_ray.domains.audio.domain import AUDIO
