"""What every stage asks of a model, whoever made it: images to latents, latents to images, differentiable both ways."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldsaug_ray.config import Vae
from ldsaug_ray.models.stylegan2.layers import NoiseMode


class Output(NamedTuple):
    """What one pass through the model gives."""

    reconstruction: Tensor  # float32[B, 3, R, R], nominally −1..1
    mu: Tensor  # float32[B, d]
    logvar: Tensor | None  # float32[B, d], log σ²; none where the encoder is deterministic


class Autoencoder(nn.Module):
    """Encoder and decoder between images of one resolution and latents of one dimension.

    Attributes:
        settings: section `vae`.
        resolution: R, side of the images, px.
        latent_dim: d.
        encoder, decoder: sub-modules that hold all weights, so that either can be frozen.
        centre: float32[d], the running mean that latents are measured from, in models that keep one.
    """

    settings: Vae
    resolution: int
    latent_dim: int
    encoder: nn.Module
    decoder: nn.Module
    centre: Tensor

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(μ, log σ²) of q(z|x), both float32[B, d]; no log σ² where the encoder is deterministic.

        Args:
            images: uint8[B, R, R, 3], uint8[B, 3, R, R], or float[B, 3, R, R] in −1..1.
        """
        raise NotImplementedError

    def decode(self, z: Tensor, noise: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """float32[B, d] -> float32[B, 3, R, R], nominally −1..1 (not clamped).

        Args:
            noise, generator: of decoders that add noise; `const` makes the picture a function of z alone.
        """
        raise NotImplementedError

    def forward(self, images: Tensor, generator: torch.Generator | None = None, noise: NoiseMode = "random") -> Output:
        """Encode, draw z = μ + σ·ε (z = μ where there is no σ), decode.

        Args:
            generator: source of ε and noise, on the images' device; none: torch's default.
        """
        mu, logvar = self.encode(images)
        z = mu
        if logvar is not None:
            eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
            z = torch.addcmul(mu, torch.exp(0.5 * logvar), eps)
        return Output(self.decode(z, noise, generator), mu, logvar)

    def likelihood(self, z: Tensor) -> Tensor:
        """How good what it decodes of latents float32[B, d] is by its own score, float32[B], the best with the most:
        log p(x|z) in models that know it; else −‖encode(decode(z)) − z‖² / d, of pictures as they are stored."""
        stored = self.decode(z, "const").add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)
        again = self.encode(stored)[0]
        return -(again - z).square().mean(1)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU where there are none (a frozen TorchScript network has constants)."""
        weight = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if weight is None else weight.device

    def structure(self) -> str:
        """What the result depends on beside the weights' names, shapes and values; for digests."""
        return ""
