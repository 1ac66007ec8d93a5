"""The VAE: StyleGAN2-structured encoder and decoder, objective, training step, inference and checkpoints. No Ray."""

from ldsaug_ray.vae.checkpoint import load_vae, read_extra, save_vae, weights_digest
from ldsaug_ray.vae.inference import decode_images, posterior_means
from ldsaug_ray.vae.losses import Elbo, Objective, kl_standard_normal, reconstruction_error
from ldsaug_ray.vae.model import RESOLUTIONS, VAE, build_vae, to_float, to_uint8, unwrap
from ldsaug_ray.vae.training import DivergedError, Trainer, step_generator

__all__ = [
    "RESOLUTIONS",
    "VAE",
    "DivergedError",
    "Elbo",
    "Objective",
    "Trainer",
    "build_vae",
    "decode_images",
    "kl_standard_normal",
    "load_vae",
    "posterior_means",
    "read_extra",
    "reconstruction_error",
    "save_vae",
    "step_generator",
    "to_float",
    "to_uint8",
    "unwrap",
    "weights_digest",
]
