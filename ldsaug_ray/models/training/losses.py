"""What the VAE itself minimises, per image: reconstruction error, and KL divergence with warm-up and free bits.

The plain objective is the β-weighted negative evidence lower bound (Kingma & Welling 2014, equation 7; Higgins et al.
2017 for β), per pixel value. Rows carry weights that sum to 1, so that images of A can count less or more than 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHARBONNIER_EPS = 1e-3


def reconstruction_error(x: Tensor, target: Tensor, kind: str) -> Tensor:
    """The l1, l2 or charbonnier distance √(δ² + ε²) − ε, ε = 1e-3, mean over an image's values: [B] of two [B, …].

    Charbonnier (Barron 2019, arXiv:1701.03077, α = 1) is l1 with a smooth bottom.
    """
    delta = (x - target).flatten(1)
    if kind == "l1":
        return delta.abs().mean(1)
    if kind == "l2":
        return delta.square().mean(1)
    if kind == "charbonnier":
        return torch.sqrt(delta.square() + CHARBONNIER_EPS**2).mean(1) - CHARBONNIER_EPS
    raise ValueError(f"unknown reconstruction error {kind!r}: l1, l2 or charbonnier")


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)) in nats of each dimension, float32[B, d] of float32[B, d].

    Kingma & Welling 2014, appendix B.
    """
    # expm1 keeps the cancellation of σ² − 1 − log σ² exact near the prior
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


def free_bits(kl: Tensor, weights: Tensor, bits: float) -> Tensor:
    """Σ_j max(λ, mean of KL_j over the batch), a scalar: Kingma et al. 2016 (arXiv:1606.04934), equation 15.

    With several workers the mean is over a worker's own share of the batch.

    Args:
        kl: nats, float32[B, d]; a dimension is a group of its own.
        weights: float32[B], of the mean.
        bits: λ, nats; with 0 this is the mean of the whole KL.
    """
    each = weights @ kl
    return (each.clamp(min=bits) if bits else each).sum()


def warmed_up(beta: float, step: int, warmup_steps: int) -> float:
    """β at `step` (from 0): β · step / warmup_steps up to β."""
    return beta if step >= warmup_steps else beta * step / warmup_steps
