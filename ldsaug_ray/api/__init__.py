"""The Python face: what notebooks and other programs call. `ldsaug_ray` itself gives its names."""
