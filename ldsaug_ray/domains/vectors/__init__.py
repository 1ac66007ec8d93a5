"""The domain `vectors`: rows of a table, embeddings, latents of one's own."""

from ldsaug_ray.domains.vectors.domain import VECTORS
