"""Measures of generated images: sharpness; where the feature network's weights are kept, and whether they are whole."""

from ldsaug_ray.metrics.sharpness import sharpness
from ldsaug_ray.metrics.weights import INCEPTION, Weights, weights_folder

__all__ = ["INCEPTION", "Weights", "sharpness", "weights_folder"]
