"""Images to posterior parameters: a residual network with the structure of StyleGAN2's discriminator.

Karras et al. 2020 (arXiv:1912.04958), figure 7c: from RGB, one residual block per halving down to 4×4, a convolution,
a hidden layer; then one linear head each for μ and log σ² in place of the discriminator's logit. There is no
minibatch statistic: an image's latent must not depend on its neighbours in the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ldsaug_ray.models.stylegan2.layers import EqualConv2d, EqualLinear

LOGVAR_BOUND = 10.0
LOGVAR_START = -2.0


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a 1×1 skip, to half the side: float32[B, in, H, W] -> float32[B, out, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = math.sqrt(0.5)  # the sum of two unit-variance branches has unit variance
        self.conv = EqualConv2d(in_channels, in_channels, 3, activate=True)
        self.down = EqualConv2d(in_channels, out_channels, 3, down=True, activate=True, gain=half)
        self.skip = EqualConv2d(in_channels, out_channels, 1, down=True, bias=False, gain=half)

    def forward(self, x: Tensor) -> Tensor:
        """float32[B, in, H, W] -> float32[B, out, H/2, W/2]."""
        return self.down(self.conv(x)) + self.skip(x)


class Encoder(nn.Module):
    """float32[B, 3, R, R] in −1..1 -> (μ, log σ²), both float32[B, latent_dim].

    log σ² passes through 10·tanh(x / 10): close to the identity where it matters, and exp() of it stays between
    5e-5 and 2e4, so that no batch can overflow the KL term or stop its gradient as a clamp would.

    Args:
        channels: {side: width} of the feature maps at R, R/2, … 4.
    """

    def __init__(self, channels: dict[int, int], latent_dim: int) -> None:
        super().__init__()
        sides = sorted(channels, reverse=True)
        self.from_rgb = EqualConv2d(3, channels[sides[0]], 1, activate=True)
        self.blocks = nn.ModuleList(
            ResidualBlock(channels[side], channels[side // 2]) for side in sides if side > sides[-1]
        )
        width = channels[4]
        self.conv = EqualConv2d(width, width, 3, activate=True)
        self.hidden = EqualLinear(width * 16, max(width, latent_dim), activate=True)
        self.mu = EqualLinear(self.hidden.weight.shape[0], latent_dim)
        self.logvar = EqualLinear(self.hidden.weight.shape[0], latent_dim, bias_init=LOGVAR_START, gain=0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float32[B, 3, R, R] in −1..1 -> (μ, log σ²), both float32[B, latent_dim]."""
        x = self.from_rgb(x)
        for block in self.blocks:
            x = block(x)
        x = self.hidden(self.conv(x).flatten(1))
        return self.mu(x), LOGVAR_BOUND * torch.tanh(self.logvar(x) / LOGVAR_BOUND)
