"""A small VAE and made-up images (smooth blobs: no data set may be copied here)."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.config import Vae

TINY = Vae(latent_dim=8, channel_base=128, channel_max=16, mapping_layers=1)


def blobs(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """uint8[n, side, side, 3]: one coloured Gaussian each."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:side, :side] / side
    centre = rng.uniform(0.2, 0.8, (n, 2, 1, 1))
    shape = np.exp(-((grid - centre) ** 2).sum(1) / 0.04)[..., None]
    return (255 * shape * rng.uniform(0.2, 1.0, (n, 1, 1, 3))).astype(np.uint8)
