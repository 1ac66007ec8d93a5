"""The variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) of StyleGAN2 parts."""

from __future__ import annotations

import torch
from torch import Tensor

from ldsaug_ray.config import Vae
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.models.autoencoder import Autoencoder, to_float
from ldsaug_ray.models.stylegan2.decoder import Decoder
from ldsaug_ray.models.stylegan2.encoder import Encoder
from ldsaug_ray.models.stylegan2.layers import NoiseMode

RESOLUTIONS = (16, 32, 64, 128, 256)


class VAE(Autoencoder):
    """Encoder to q(z|x) = N(μ, diag σ²), decoder from z.

    Latents are measured from `centre`, a running mean of the encoder's output that training keeps: μ = encoder(x) −
    centre, and the decoder gets z + centre. This is the VAE whose prior mean is learned, in coordinates where that mean
    is 0, and the mean of the posterior means is the value that minimises the KL term. Without it, 80 % of a latent's
    norm was one offset common to all images (measured on digits): far from N(0, I), and in the way of any bandwidth
    taken from norms.
    A shift of `centre` cancels between encoder and decoder, so that reconstructions never depend on it.

    Raises:
        ConfigError: settings of a pretrained kind, another resolution, or `channel_base` too small for it.
    """

    def __init__(self, settings: Vae, resolution: int) -> None:
        super().__init__()
        if settings.latent_dim is None or settings.mapping_layers is None:
            raise ConfigError(f"vae.kind: {settings.kind} is opened, not built; only stylegan2 can be built anew")
        self.settings = settings
        self.resolution = resolution
        self.latent_dim = settings.latent_dim
        widths = channels(settings, resolution)
        self.encoder = Encoder(widths, settings.latent_dim)
        self.decoder = Decoder(widths, settings.latent_dim, settings.mapping_layers)
        self.register_buffer("centre", torch.zeros(settings.latent_dim))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, log σ²), both float32[B, d], of uint8[B, R, R, 3], uint8[B, 3, R, R] or float32[B, 3, R, R] in −1..1."""
        mu, logvar = self.encoder(to_float(images))
        return mu - self.centre, logvar

    def decode(self, z: Tensor, noise: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """float32[B, d] -> float32[B, 3, R, R], nominally −1..1; `const` noise makes it a function of z alone."""
        return self.decoder(z + self.centre, noise, generator)


def build_vae(settings: Vae, resolution: int, seed: int) -> VAE:
    """A new VAE on the CPU whose weights depend on the arguments alone; torch's random state is left as it was.

    Raises:
        ConfigError: as `VAE`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return VAE(settings, resolution)


def channels(settings: Vae, resolution: int) -> dict[int, int]:
    """{side: width of its feature maps} for sides 4, 8, … resolution: min(channel_base / side, channel_max).

    Raises:
        ConfigError: the resolution is not in `RESOLUTIONS`, or a side would get no channel.
    """
    if resolution not in RESOLUTIONS:
        raise ConfigError(f"data.resolution: {resolution} is not one of {', '.join(map(str, RESOLUTIONS))}")
    if settings.channel_base < resolution:
        raise ConfigError(
            f"vae.channel_base: {settings.channel_base} leaves no channel at {resolution} px; "
            f"give at least {resolution} (channels at side r: channel_base / r)"
        )
    return {
        side: min(settings.channel_base // side, settings.channel_max)
        for side in (4, 8, *RESOLUTIONS)
        if side <= resolution
    }


def step_flop(settings: Vae, resolution: int, batch: int) -> float:
    """Floating-point operations of a training step of encoder and decoder, about: their 3×3 convolutions, forwards once
    and backwards twice. Each has two a side: one at its width, one between that and the next, at half the side."""
    widths = channels(settings, resolution)
    positions = (side**2 * c * (c + widths.get(side // 2, 0) / 4) for side, c in widths.items())
    return 3.0 * 2 * batch * 2 * 9 * sum(positions)
