"""Codecs of images, whoever made them: differentiable both ways, so that a discriminator can judge what they decode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ldsaug_ray.config import Objective, Vae
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.stylegan2.layers import NoiseMode
from ldsaug_ray.models.training.losses import reconstruction_error


class Output(NamedTuple):
    """What one pass through the model gives."""

    reconstruction: Tensor  # float32[B, 3, R, R], nominally −1..1
    mu: Tensor  # float32[B, d]
    logvar: Tensor | None  # float32[B, d], log σ²; none where the encoder is deterministic


class Autoencoder(Codec):
    """Encoder and decoder between images of one resolution and latents of one dimension: a `Codec`, and

    Attributes:
        resolution: R, side of the images, px.
        centre: float32[d], the running mean that latents are measured from, in models that keep one.
    """

    unit = "images"
    settings: Vae
    resolution: int
    centre: Tensor

    @property
    def given(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {"resolution": self.resolution}

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

    def blank(self, n: int) -> NDArray[np.uint8]:
        """As of `Codec`: uint8[n, R, R, 3]."""
        return np.empty((n, self.resolution, self.resolution, 3), np.uint8)

    def to_batch(self, output: Tensor) -> NDArray[np.uint8]:
        """As of `Codec`: rounded, values outside clamped."""
        return to_uint8(output).cpu().numpy()

    def held_out_error(self, batch: NDArray[np.uint8], objective: Objective) -> float:
        """As of `Codec`, of pictures as they are stored."""
        from ldsaug_ray.models.inference import decode_batch, encode_batch

        shown = decode_batch(self, encode_batch(self, batch, 64), 64)
        pair = [to_float(torch.tensor(x)) for x in (shown, batch)]
        return float(reconstruction_error(pair[0], pair[1], objective.reconstruction).mean())


def to_float(images: Tensor) -> Tensor:
    """uint8[B, H, W, 3] or uint8[B, 3, H, W] -> float32[B, 3, H, W] in −1..1, channels last; floats pass unchanged.

    Raises:
        InputError: another shape or dtype.
    """
    if images.ndim == 4 and images.shape[1] == 3 and images.is_floating_point():
        return images.contiguous(memory_format=torch.channels_last)
    if images.ndim != 4 or images.dtype != torch.uint8 or 3 not in (images.shape[1], images.shape[3]):
        raise InputError(
            f"images must be uint8[B, H, W, 3], uint8[B, 3, H, W] or float[B, 3, H, W] in -1..1; "
            f"got {str(images.dtype).removeprefix('torch.')}{list(images.shape)}"
        )
    if images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2)
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """float[B, 3, H, W], −1..1 -> uint8[B, H, W, 3], rounded, values outside clamped; inverts `to_float` exactly."""
    return x.permute(0, 2, 3, 1).add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).contiguous()
