"""Blocks against naive float64 references and their own claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from torch import Tensor

from ldsaug_ray.models.stylegan2.layers import (
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    NoiseMode,
    StyledConv,
    downsample,
    fir_filter,
    upsample,
)

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _naive_modulated(layer: ModulatedConv2d, x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """Karras et al. 2020, equations 1 and 3 as written: one set of weights per sample."""
    out = []
    for sample, style in zip(x, layer.style(w), strict=True):
        weight = layer.weight * layer.weight_gain * style[None, :, None, None]
        if layer.demodulate:
            weight = weight / torch.sqrt(weight.square().sum((1, 2, 3), keepdim=True) + 1e-8)
        weight = weight * layer.gain
        if layer.up:
            stuffed = sample.new_zeros(1, sample.shape[0], 2 * sample.shape[1] + 3, 2 * sample.shape[2] + 3)
            stuffed[:, :, 2:-2:2, 2:-2:2] = sample  # zeros between the samples, then a convolution with the flip
            y = F.conv2d(stuffed, weight.flip(2, 3))
            y = torch.tensor(np.stack([4 * convolve2d(c, FIR) for c in y[0].detach().numpy()]))[None, :, 2:-2, 2:-2]
        else:
            y = F.conv2d(sample[None], weight, padding=weight.shape[-1] // 2)
        out.append(y[0] + bias[:, None, None])
    return torch.stack(out)


@pytest.mark.parametrize(("up", "demodulate", "kernel"), [(False, True, 3), (True, True, 3), (False, False, 1)])
def test_modulated_convolution_equals_per_sample_weights(up: bool, demodulate: bool, kernel: int) -> None:
    layer = ModulatedConv2d(5, 4, kernel, 6, up=up, demodulate=demodulate, gain=1.3).double()
    x, w = torch.randn(3, 5, 8, 8, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    y = layer(x, w, bias)
    assert y.shape == (3, 4, 16, 16) if up else (3, 4, 8, 8)
    torch.testing.assert_close(y, _naive_modulated(layer, x, w, bias), rtol=1e-6, atol=1e-6)


def test_demodulation_gives_unit_variance_whatever_the_style() -> None:
    layer = ModulatedConv2d(32, 16, 3, 8)
    x = torch.randn(64, 32, 16, 16, generator=_seeded())
    y = layer(x, 20 * torch.randn(64, 8, generator=_seeded(1)), torch.zeros(16)).detach()[..., 1:-1, 1:-1]
    assert y.var().item() == pytest.approx(1, abs=0.02)
    assert y.var((0, 2, 3)).numpy() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("lr_mult", [1.0, 0.01])
def test_equalised_linear_is_unit_variance_and_scales_its_step(lr_mult: float) -> None:
    layer = EqualLinear(256, 256, lr_mult=lr_mult, bias_init=2.0)
    x = torch.randn(512, 256, generator=_seeded())
    before = layer(x)
    assert before.mean().item() == pytest.approx(2, abs=0.05)
    assert before.var().item() == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        layer.weight.add_(1.0)  # what Adam does, up to sign, with learning rate 1
        layer.bias.add_(1.0)
    expected = (x.sum(1) / 16 + 1) * lr_mult
    torch.testing.assert_close(layer(x) - before, expected[:, None].expand(512, 256), rtol=1e-3, atol=1e-3)


def test_activation_keeps_the_second_moment() -> None:
    x = torch.randn(512, 256, generator=_seeded())
    # E[lrelu(x)²] = (1 + 0.2²)/2, times √2² = 1.04
    assert EqualLinear(256, 256, activate=True)(x).square().mean().item() == pytest.approx(1.04, abs=0.05)
    image = torch.randn(16, 32, 16, 16, generator=_seeded())
    y = EqualConv2d(32, 64, 3, activate=True)(image)[..., 1:-1, 1:-1]
    assert y.square().mean().item() == pytest.approx(1.04, abs=0.08)


def test_convolution_bias_and_gain_act_after_the_activation() -> None:
    layer = EqualConv2d(3, 4, 3, activate=True, gain=0.5).double()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    y = F.conv2d(x, layer.weight / 27**0.5, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), 0.5 * 2**0.5 * F.leaky_relu(y, 0.2))


def test_fir_and_resampling_equal_scipy() -> None:
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64, generator=_seeded())
    full = np.stack([[convolve2d(c, FIR) for c in sample] for sample in x.numpy()])  # 'full': padding 3
    np.testing.assert_allclose(fir_filter(x, padding=2), full[..., 1:-1, 1:-1], rtol=1e-12)
    np.testing.assert_allclose(downsample(x), full[..., 2:-2:2, 2:-2:2], rtol=1e-12)
    stuffed = np.zeros((2, 3, 16, 12))
    stuffed[..., ::2, ::2] = x
    full = 4 * np.stack([[convolve2d(c, FIR) for c in sample] for sample in stuffed])
    np.testing.assert_allclose(upsample(x), full[..., 1:-2, 1:-2], rtol=1e-12, atol=1e-15)


def test_strided_convolution_filters_first() -> None:
    layer = EqualConv2d(3, 4, 3, down=True, bias=False).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = F.conv2d(fir_filter(x, padding=2), layer.weight / 27**0.5)[..., ::2, ::2]
    torch.testing.assert_close(layer(x), expected)


def test_resampling_keeps_constants_inside_and_removes_the_finest_stripes() -> None:
    ones = torch.ones(1, 2, 16, 16)
    assert torch.equal(downsample(ones)[..., 1:-1, 1:-1], torch.ones(1, 2, 6, 6))
    torch.testing.assert_close(upsample(ones)[..., 1:-1, 1:-1], torch.ones(1, 2, 30, 30))
    stripes = ones * torch.tensor([1.0, -1.0]).repeat(8)
    assert downsample(stripes)[..., 1:-1, 1:-1].abs().max() == 0


def test_upsampling_is_four_times_the_adjoint_of_downsampling() -> None:
    x, y = torch.randn(1, 1, 8, 8, dtype=torch.float64), torch.randn(1, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close((upsample(x) * y).sum(), 4 * (x * downsample(y)).sum())


@pytest.mark.parametrize("up", [False, True])
def test_gradients_equal_finite_differences(up: bool) -> None:
    layer = StyledConv(2, 3, 8 if up else 4, 4, up=up).double()
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, w: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x, w, layer.noise_const))

    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True, generator=_seeded(3))
    w = torch.randn(2, 4, dtype=torch.float64, requires_grad=True, generator=_seeded(4))
    assert torch.autograd.gradcheck(call, (x, w, *layer.parameters()), eps=1e-7, atol=1e-5)


def test_noise_modes() -> None:
    layer = StyledConv(2, 3, 8, 4)
    x, w = torch.randn(2, 2, 8, 8), torch.randn(2, 4)

    def call(noise: NoiseMode, seed: int | None = None) -> Tensor:
        return layer(x, w, layer.pattern(2, noise, None if seed is None else _seeded(seed)))

    assert torch.equal(call("const"), call("random")), "strength starts at 0"
    with torch.no_grad():
        layer.noise_strength.fill_(1.0)
    assert torch.equal(call("const"), call("const"))
    assert torch.equal(call("random", 0), call("random", 0))
    assert not torch.equal(call("random", 0), call("random", 1))
    assert not torch.equal(call("random", 0), call("const"))
