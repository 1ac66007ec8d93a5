"""Models: the StyleGAN2 autoencoder, the user's own, codecs of other domains; training, checkpoints. No Ray."""

from typing import TYPE_CHECKING

from ldsaug_ray.common.lazy import lazily

if TYPE_CHECKING:
    from ldsaug_ray.errors import DivergedError
    from ldsaug_ray.models.adapters import open_pretrained, pretrained_stamp
    from ldsaug_ray.models.autoencoder import Autoencoder, Output, to_float, to_uint8
    from ldsaug_ray.models.checkpoint import load_vae, read_latent_dim, save_vae, weights_digest
    from ldsaug_ray.models.codec import Codec
    from ldsaug_ray.models.codecs import CODECS, CodecKind
    from ldsaug_ray.models.inference import decode_batch, decode_images, encode_batch, likelihoods, posterior_means
    from ldsaug_ray.models.stylegan2.discriminator import (
        Discriminator,
        build_discriminator,
        load_discriminator,
        save_discriminator,
    )
    from ldsaug_ray.models.stylegan2.model import RESOLUTIONS, VAE, build_vae
    from ldsaug_ray.models.training.batch import Augmented
    from ldsaug_ray.models.training.losses import free_bits, kl_standard_normal, reconstruction_error
    from ldsaug_ray.models.training.perceptual import load_perceptual
    from ldsaug_ray.models.training.trainer import Trainer, step_generator
else:
    __getattr__ = lazily(__name__, __file__)
