"""Losses and regularisers against closed forms and explicit Jacobians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from vae_helpers import TINY

from ldsaug_ray.config import Adversarial
from ldsaug_ray.models import VAE, build_discriminator, build_vae
from ldsaug_ray.models.stylegan2.adversarial import (
    loss_if_fake,
    loss_if_real,
    mixed_styles,
    path_lengths,
    r1_gamma,
    r1_penalty,
)
from ldsaug_ray.models.stylegan2.augment import augment


def test_losses_are_logarithms_of_the_sigmoid() -> None:
    logits = np.array([-3.0, -0.1, 0.0, 2.0])
    probability = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(loss_if_real(torch.tensor(logits)), -np.log(probability))
    np.testing.assert_allclose(loss_if_fake(torch.tensor(logits)), -np.log(1 - probability))
    assert torch.isfinite(loss_if_fake(torch.tensor([1e4, -1e4]))).all()


def test_gamma() -> None:
    assert r1_gamma(Adversarial(), 256, 32) == pytest.approx(0.0002 * 256**2 / 32)
    assert r1_gamma(Adversarial(r1_gamma=3.0), 256, 32) == 3.0


def test_r1_of_a_known_function_and_its_own_gradient() -> None:
    x = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(lambda t: a * t.square().sum((1, 2, 3)), x)
    torch.testing.assert_close(penalty, 4 * a**2 * x.square().sum((1, 2, 3)))
    (slope,) = torch.autograd.grad(penalty.sum(), a)
    torch.testing.assert_close(slope, 8 * a * x.square().sum())


def test_r1_of_the_discriminator_equals_finite_differences_through_the_augmentation() -> None:
    """On a random 12-dimensional subspace of the images, so that a few differences are enough."""
    d = build_discriminator(TINY, 16, Adversarial(stddev_group=1), seed=0).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    basis = torch.randn(3, 2, 2, 3, 16, 16, dtype=torch.float64)

    def discriminate(t: Tensor) -> Tensor:
        images = x + torch.einsum("bcij,cijdkl->bdkl", t, basis)
        return d(augment(images, ("color", "translation", "cutout"), 1.0, torch.Generator().manual_seed(0)))

    step, expected = 1e-5, torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for unit in torch.eye(12, dtype=torch.float64).reshape(12, 1, 3, 2, 2):
            ends = [discriminate((sign * step * unit).expand(2, -1, -1, -1)) for sign in (1, -1)]
            expected += ((ends[0] - ends[1]) / (2 * step)).square()
    penalty = r1_penalty(discriminate, torch.zeros(2, 3, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=1e-9)
    gradients = torch.autograd.grad(penalty.sum(), list(d.parameters()), allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)


def _explicit_lengths(vae: VAE, z: Tensor, seed: int) -> Tensor:
    """‖Jᵀy‖ from a full Jacobian per style, in the order the function draws noise and y."""
    decoder, generator = vae.decoder, torch.Generator().manual_seed(seed)
    patterns = decoder.patterns(len(z), "random", generator)
    y = torch.randn(len(z), 3, 16, 16, generator=generator) / 16
    lengths = []
    for row in range(len(z)):
        styles = decoder.mapping(z)[row].expand(1, decoder.styles, -1).detach()
        own = [p[row : row + 1] for p in patterns]
        jacobian = torch.autograd.functional.jacobian(
            lambda w, own=own: decoder.synthesis(w, own), styles, vectorize=True
        )
        pulled = torch.einsum("bcij,bcijnld->nld", y[row : row + 1], jacobian)
        lengths.append(pulled.square().sum(2).mean().sqrt())
    return torch.stack(lengths)


@pytest.mark.parametrize("mapping_layers", [0, 1])
def test_path_lengths_equal_an_explicit_jacobian(mapping_layers: int) -> None:
    vae = build_vae(TINY.model_copy(update={"mapping_layers": mapping_layers}), 16, seed=1)
    z = torch.randn(2, 8)
    lengths = path_lengths(vae.decoder, z, torch.Generator().manual_seed(4))
    torch.testing.assert_close(lengths, _explicit_lengths(vae, z, 4), rtol=1e-3, atol=1e-6)
    lengths.sum().backward()
    assert all(p.grad is not None for n, p in vae.decoder.named_parameters() if "weight" in n and "rgb" not in n)


def test_styles_for_each_layer(tiny: VAE) -> None:
    decoder = tiny.decoder
    assert decoder.styles == 2 * 4 - 2  # 2 log2(R) − 2
    w = decoder.mapping(torch.randn(3, 8))
    patterns = decoder.patterns(3, "const")
    same = decoder.synthesis(w[:, None].expand(-1, decoder.styles, -1), patterns)
    torch.testing.assert_close(same, decoder.synthesis(w, patterns))
    for layer in range(decoder.styles):
        styles = w[:, None].repeat(1, decoder.styles, 1)
        styles[:, layer] += 1
        assert not torch.allclose(decoder.synthesis(styles, patterns), same), f"style {layer} is of no effect"


def test_mixing_swaps_the_later_styles_of_some_images() -> None:
    n, styles = 4000, 6
    w, other = torch.zeros(n, 2), torch.ones(n, 2)
    mixed = mixed_styles(w, other, styles, 0.4, torch.Generator().manual_seed(0))
    assert mixed.shape == (n, styles, 2)
    firsts = styles - mixed[:, :, 0].sum(1).int()
    assert (mixed.diff(dim=1) >= 0).all(), "never back to the first latent"
    assert (firsts == styles).float().mean().item() == pytest.approx(0.6, abs=0.03)
    share = torch.bincount(firsts, minlength=styles + 1)[1:styles] / n
    assert share.numpy() == pytest.approx(0.4 / 5, abs=0.02), "the crossover is uniform, the first style never swapped"
    assert torch.equal(mixed_styles(w, other, styles, 0.0, torch.Generator()), w[:, None].expand(-1, styles, -1))
