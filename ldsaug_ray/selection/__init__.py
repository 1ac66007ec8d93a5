"""Which candidates are kept: thresholds, shares, and their controls. Arrays in, candidate ids out."""

from ldsaug_ray.selection.random_choice import random_candidates
from ldsaug_ray.selection.threshold import Selection, select
