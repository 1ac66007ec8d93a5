"""Latents to images: StyleGAN2's mapping network and synthesis network with skip outputs.

Karras et al. 2019 (arXiv:1812.04948) for mapping and noise, 2020 (arXiv:1912.04958), figure 7b, for synthesis. One
difference: z is not normalised before the mapping network. A VAE's z carries the image in its length too, and under
the prior N(0, I) its components already have unit variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ldsaug_ray.vae.layers import EqualLinear, NoiseMode, StyledConv, ToRgb, upsample

MAPPING_LR_MULT = 0.01


class Mapping(nn.Sequential):
    """z -> w, both float32[B, latent_dim], by `layers` fully connected layers; none: w = z."""

    def __init__(self, latent_dim: int, layers: int) -> None:
        super().__init__(
            *(EqualLinear(latent_dim, latent_dim, lr_mult=MAPPING_LR_MULT, activate=True) for _ in range(layers))
        )


class SynthesisBlock(nn.Module):
    """Doubles the side of features and picture and adds this resolution's share of the picture."""

    def __init__(self, in_channels: int, out_channels: int, resolution: int, w_dim: int) -> None:
        super().__init__()
        self.up = StyledConv(in_channels, out_channels, resolution, w_dim, up=True)
        self.conv = StyledConv(out_channels, out_channels, resolution, w_dim)
        self.to_rgb = ToRgb(out_channels, w_dim)

    def forward(
        self, x: Tensor, rgb: Tensor, w: Tensor, noise: NoiseMode, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """x float32[B, in, R/2, R/2], rgb float32[B, 3, R/2, R/2] -> (float32[B, out, R, R], float32[B, 3, R, R])."""
        x = self.conv(self.up(x, w, noise, generator), w, noise, generator)
        return x, upsample(rgb) + self.to_rgb(x, w)


class Decoder(nn.Module):
    """z float32[B, latent_dim] -> picture float32[B, 3, R, R], nominally in −1..1 (not clamped).

    Args:
        channels: {side: width} of the feature maps at 4, 8, … R.
        latent_dim: d, and the width of w.
        mapping_layers: layers of the mapping network; 0: w = z.
    """

    def __init__(self, channels: dict[int, int], latent_dim: int, mapping_layers: int) -> None:
        super().__init__()
        sides = sorted(channels)
        self.mapping = Mapping(latent_dim, mapping_layers)
        self.const = nn.Parameter(torch.randn(1, channels[4], 4, 4))
        self.conv = StyledConv(channels[4], channels[4], 4, latent_dim)
        self.to_rgb = ToRgb(channels[4], latent_dim)
        self.blocks = nn.ModuleList(
            SynthesisBlock(channels[side // 2], channels[side], side, latent_dim) for side in sides[1:]
        )

    def forward(self, z: Tensor, noise: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """float32[B, latent_dim] -> float32[B, 3, R, R]; see `StyledConv.forward` for `noise` and `generator`."""
        w = self.mapping(z)
        x = self.const.expand(len(z), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.conv(x, w, noise, generator)
        rgb = self.to_rgb(x, w)
        for block in self.blocks:
            x, rgb = block(x, rgb, w, noise, generator)
        return rgb
