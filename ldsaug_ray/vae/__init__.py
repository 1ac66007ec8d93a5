"""The autoencoder: StyleGAN2-structured or the user's own; objective, training step, inference, checkpoints. No Ray."""

from ldsaug_ray.vae.adapters import open_pretrained, pretrained_stamp
from ldsaug_ray.vae.autoencoder import Autoencoder, Output
from ldsaug_ray.vae.checkpoint import load_vae, read_extra, read_latent_dim, save_vae, weights_digest
from ldsaug_ray.vae.inference import decode_images, posterior_means
from ldsaug_ray.vae.losses import Elbo, Objective, kl_standard_normal, reconstruction_error
from ldsaug_ray.vae.model import RESOLUTIONS, VAE, build_vae, to_float, to_uint8, unwrap
from ldsaug_ray.vae.training import DivergedError, Trainer, step_generator

__all__ = [
    "RESOLUTIONS",
    "VAE",
    "Autoencoder",
    "DivergedError",
    "Elbo",
    "Objective",
    "Output",
    "Trainer",
    "build_vae",
    "decode_images",
    "kl_standard_normal",
    "load_vae",
    "open_pretrained",
    "posterior_means",
    "pretrained_stamp",
    "read_extra",
    "read_latent_dim",
    "reconstruction_error",
    "save_vae",
    "step_generator",
    "to_float",
    "to_uint8",
    "unwrap",
    "weights_digest",
]
