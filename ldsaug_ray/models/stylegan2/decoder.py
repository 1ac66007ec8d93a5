"""Latents to images: StyleGAN2's mapping network and synthesis network with skip outputs.

Karras et al. 2019 (arXiv:1812.04948) for mapping and noise, 2020 (arXiv:1912.04958), figure 7b, for synthesis. One
difference: z is not normalised before the mapping network. A VAE's z carries the image in its length too, and under
the prior N(0, I) its components already have unit variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldsaug_ray.models.stylegan2.layers import EqualLinear, NoiseMode, StyledConv, ToRgb, upsample

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
        self, x: Tensor, rgb: Tensor, styles: Sequence[Tensor], patterns: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """x float32[B, in, R/2, R/2], rgb float32[B, 3, R/2, R/2] -> (float32[B, out, R, R], float32[B, 3, R, R]).

        Args:
            rgb: picture so far, always float32: pixel values need more than bfloat16's 8 bits.
            styles: of `up`, `conv` and `to_rgb`, float32[B, w_dim] each.
        """
        x = self.conv(self.up(x, styles[0], patterns[0]), styles[1], patterns[1])
        with torch.autocast(rgb.device.type, enabled=False):
            rgb = upsample(rgb)
        return x, rgb + self.to_rgb(x, styles[2])


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

    @property
    def styles(self) -> int:
        """How many styles `synthesis` takes: 2 log2(R) − 2; a ToRgb shares that of the convolution after it."""
        return 2 * len(self.blocks) + 2

    def forward(self, z: Tensor, noise: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """float32[B, latent_dim] -> float32[B, 3, R, R]; see `StyledConv.pattern` for `noise` and `generator`."""
        return self.synthesis(self.mapping(z), self.patterns(len(z), noise, generator))

    def patterns(self, batch: int, noise: NoiseMode, generator: torch.Generator | None = None) -> list[Tensor]:
        """The noise of every synthesis layer, in order; see `StyledConv.pattern`."""
        layers: list[StyledConv] = [self.conv]
        for block in self.blocks:
            assert isinstance(block, SynthesisBlock)
            layers += [block.up, block.conv]
        return [layer.pattern(batch, noise, generator) for layer in layers]

    def synthesis(self, w: Tensor, patterns: Sequence[Tensor]) -> Tensor:
        """w float32[B, latent_dim], or float32[B, styles, latent_dim], and noise -> float32[B, 3, R, R]."""
        styles = [w] * self.styles if w.ndim == 2 else w.unbind(1)
        x = self.const.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.conv(x, styles[0], patterns[0])
        rgb = self.to_rgb(x, styles[1]).to(self.const.dtype)
        for k, block in enumerate(self.blocks):
            x, rgb = block(x, rgb, styles[2 * k + 1 : 2 * k + 4], patterns[2 * k + 1 : 2 * k + 3])
        return rgb
