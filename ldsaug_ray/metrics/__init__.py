"""Measures of generated images. So far: where the feature network's weights are kept, and whether they are whole."""

from ldsaug_ray.metrics.weights import INCEPTION, Weights, weights_folder

__all__ = ["INCEPTION", "Weights", "weights_folder"]
