"""A small VAE and made-up images (smooth blobs: no data set may be copied here)."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.config import Adversarial, Objective, Optimisation, Vae
from ldsaug_ray.models import Augmented

TINY = Vae(latent_dim=8, channel_base=128, channel_max=16, mapping_layers=1)


def blobs(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """uint8[n, side, side, 3]: one coloured Gaussian each."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:side, :side] / side
    centre = rng.uniform(0.2, 0.8, (n, 2, 1, 1))
    shape = np.exp(-((grid - centre) ** 2).sum(1) / 0.04)[..., None]
    return (255 * shape * rng.uniform(0.2, 1.0, (n, 1, 1, 3))).astype(np.uint8)


SETTINGS = Optimisation(
    steps=1,
    learning_rate=0.01,
    adam_betas=(0.9, 0.99),
    gradient_clip=1.0,
    objective=Objective(beta=0.05, kl_warmup_steps=4),
)

# every term and regulariser, with cycles short enough for tests to meet them all
EVERYTHING = Optimisation(
    steps=1,
    batch_size=4,
    learning_rate=0.002,
    adam_betas=(0.5, 0.99),
    weight_decay=0.01,
    ema_half_life=50,
    gradient_clip=1.0,
    objective=Objective(
        reconstruction="charbonnier",
        kl_warmup_steps=4,
        free_bits=0.05,
        adversarial=Adversarial(
            weight=0.3,
            start_step=1,
            learning_rate=0.003,
            r1_gamma=0.5,
            r1_every=3,
            style_mixing=0.5,
            path_length=1.0,
            path_length_every=2,
            augment_probability="adaptive",
            ada_images=200,
        ),
    ),
)


def part_of_a(seed: int, n: int = 3) -> Augmented:
    """Made-up images, latents and weights of A for `TINY` at 16 px."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 8)).astype(np.float32)
    return Augmented(blobs(n, seed=seed + 100), z, rng.uniform(0.5, 1.5, n).astype(np.float32))
