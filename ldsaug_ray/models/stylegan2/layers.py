"""The StyleGAN2 building blocks that encoder and decoder share, in a form that is fast on CPU and GPU alike.

Sources: equalised learning rates, Karras et al. 2018 (arXiv:1710.10196) section 4.1; styles and noise, Karras et al.
2019 (arXiv:1812.04948); modulation, demodulation, skips and resampling, Karras et al. 2020 (arXiv:1912.04958).

Feature maps are float32[B, C, H, W] kept in channels-last memory: on CPUs this halves the time of the depthwise FIR
filters, and every convolution passes the layout on.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NoiseMode = Literal["random", "const"]

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)
DEMODULATION_EPS = 1e-8
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)


class EqualLinear(nn.Module):
    """Fully connected layer with equalised learning rate: float32[B, in] -> float32[B, out].

    Stored weights are N(0, 1/lr_mult²) and multiplied by lr_mult·gain/√in at run time, so that Adam, whose steps do not
    see a parameter's scale, moves every layer at the same relative speed.

    Args:
        lr_mult: speed of this layer relative to the others (StyleGAN2's mapping network: 0.01).
        bias_init: the bias at initialisation.
        activate: apply leaky ReLU(0.2)·√2.
        gain: standard deviation of the output for unit-variance input, before the bias and activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        lr_mult: float = 1.0,
        bias_init: float = 0.0,
        activate: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mult)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_mult))
        # Leaky ReLU is positively homogeneous, so its √2 joins the weights instead of costing a pass over the output.
        act_gain = LRELU_GAIN if activate else 1.0
        self.weight_gain = gain * act_gain * lr_mult / math.sqrt(in_features)
        self.bias_gain = act_gain * lr_mult
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """float32[B, in] -> float32[B, out]."""
        y = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(y, LRELU_SLOPE) if self.activate else y


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate, odd kernel, `same` size, or half the size with an antialiasing filter.

    Args:
        down: halve the side: FIR filter, then stride 2.
        activate: apply leaky ReLU(0.2)·√2.
        gain: factor on the output (after the activation), folded into the weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        down: bool = False,
        activate: bool = False,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        act_gain = LRELU_GAIN if activate else 1.0
        self.weight_gain = gain * act_gain / math.sqrt(in_channels * kernel**2)
        self.bias_gain = gain * act_gain
        self.down = down
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """float32[B, in, H, W] -> float32[B, out, H, W], or half of H and W with `down`."""
        weight = scaled(self.weight, self.weight_gain)
        bias = None if self.bias is None else self.bias * self.bias_gain
        kernel = self.weight.shape[-1]
        if not self.down:
            y = F.conv2d(x, weight, bias, padding=kernel // 2)
        elif kernel == 1:  # filtering and subsampling first saves three quarters of the filter's work
            y = F.conv2d(downsample(x), weight, bias)
        else:
            y = F.conv2d(fir_filter(x, padding=kernel // 2 + 1), weight, bias, stride=2)
        return F.leaky_relu(y, LRELU_SLOPE, inplace=True) if self.activate else y


class ModulatedConv2d(nn.Module):
    """Modulated, demodulated convolution (Karras et al. 2020, equations 1 and 3), optionally to twice the size.

    Scaling a sample's weights by its styles is the same as scaling its input channels; dividing each output filter by
    its norm is the same as scaling its output channels. One shared weight then serves the whole batch, where
    per-sample weights would need a grouped convolution.

    Args:
        w_dim: width of the style vector w.
        up: double the side: transposed convolution with stride 2, then the FIR filter.
        demodulate: restore unit variance of each output channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        w_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.style = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel**2)
        self.up = up
        self.demodulate = demodulate
        self.gain = gain

    def forward(self, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        """x float32[B, in, H, W], w float32[B, w_dim], bias float32[out] -> float32[B, out, H, W] (or 2H, 2W)."""
        style = self.style(w)
        weight = scaled(self.weight, self.weight_gain if self.demodulate else self.weight_gain * self.gain)
        x = x * style[:, :, None, None]
        if self.up:
            y = fir_filter(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        bias = bias.to(y.dtype)  # under autocast a float32 bias would make the whole map float32
        if not self.demodulate:
            return y + bias[:, None, None]
        norm2 = F.linear(style.square(), weight.square().sum((2, 3)))
        scale = (torch.rsqrt(norm2 + DEMODULATION_EPS) * self.gain).to(y.dtype)
        return torch.addcmul(bias[:, None, None], y, scale[:, :, None, None])


class StyledConv(nn.Module):
    """One synthesis layer: modulated 3×3 convolution, noise of learned strength (0 at first), bias, activation.

    Args:
        up: the output has twice the side of the input.
    """

    noise_const: Tensor

    def __init__(self, in_channels: int, out_channels: int, resolution: int, w_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, w_dim, up=up, gain=LRELU_GAIN)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, pattern: Tensor) -> Tensor:
        """float32[B, in, H, W] -> float32[B, out, R, R].

        Args:
            x: features.
            w: styles, float32[B, w_dim].
            pattern: noise to add, as `pattern` gives it.
        """
        y = self.conv(x, w, self.bias * LRELU_GAIN)
        y = y + (pattern * (self.noise_strength * LRELU_GAIN)).to(y.dtype)
        return F.leaky_relu(y, LRELU_SLOPE, inplace=True)

    def pattern(self, batch: int, noise: NoiseMode, generator: torch.Generator | None = None) -> Tensor:
        """Noise for `forward`: float32[R, R], the stored pattern (`const`), or float32[batch, 1, R, R], new (`random`).

        It is drawn apart from its use because compiled code can take no generator.

        Args:
            noise: `const` makes the picture a function of the latent alone.
            generator: source of the random noise, on the weights' device; none: torch's default.
        """
        if noise == "const":
            return self.noise_const
        side = self.noise_const.shape[-1]
        like = self.bias
        return torch.randn(batch, 1, side, side, generator=generator, device=like.device, dtype=like.dtype)


class ToRgb(nn.Module):
    """Skip output: modulated 1×1 convolution to RGB without demodulation.

    It starts at a tenth of unit variance: the sum over all resolutions then begins near mid-grey, within the images'
    range, instead of several times outside it.
    """

    def __init__(self, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, 3, 1, w_dim, demodulate=False)
        with torch.no_grad():
            self.conv.weight.mul_(0.1)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """float32[B, C, H, W], styles float32[B, w_dim] -> float32[B, 3, H, W]."""
        return self.conv(x, w, self.bias)


def scaled(weight: Tensor, gain: float) -> Tensor:
    """weight · gain, float[out, in, k, k], whose gradient comes back in the weight's own memory layout.

    Convolutions of channels-last features return channels-last gradients, which would be copied to the weight layout
    one by one as they are accumulated.
    """
    return (weight.flatten(1) * gain).view_as(weight)


def fir_kernel(like: Tensor, gain: float = 1.0) -> Tensor:
    """The separable low-pass filter [1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 64 · gain, as float[4, 4] of `like`'s type."""
    taps = torch.tensor(FIR_TAPS, device=like.device, dtype=like.dtype)
    return torch.outer(taps, taps) * (gain / 64.0)


def fir_filter(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Low-pass filter each channel: float[B, C, H, W] -> float[B, C, H + 2·padding − 3, W + 2·padding − 3]."""
    channels = x.shape[1]
    return F.conv2d(x, fir_kernel(x, gain).expand(channels, 1, 4, 4), padding=padding, groups=channels)


def downsample(x: Tensor) -> Tensor:
    """Antialiased halving: float[B, C, H, W] -> float[B, C, H/2, W/2], centred, zeros outside the image."""
    channels = x.shape[1]
    return F.conv2d(x, fir_kernel(x).expand(channels, 1, 4, 4), padding=1, stride=2, groups=channels)


def upsample(x: Tensor) -> Tensor:
    """Antialiased doubling: float[B, C, H, W] -> float[B, C, 2H, 2W]; the adjoint of `downsample`, times 4."""
    channels = x.shape[1]
    kernel = fir_kernel(x, 4.0).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, kernel, padding=1, stride=2, groups=channels)
