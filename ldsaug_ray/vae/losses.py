"""Training objectives: what a step minimises.

An objective is a callable `objective(module, images, step, generator) -> (total, terms)`, so that other terms
(adversarial, cycle) can join without a change to the trainer. The plain one is the β-weighted negative evidence lower
bound (Kingma & Welling 2014, equation 7; Higgins et al. 2017 for β), per pixel value.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldsaug_ray.config import settings as config

CHARBONNIER_EPS = 1e-3

Terms = dict[str, Tensor]


class Objective(Protocol):
    """What the trainer minimises."""

    def __call__(
        self,
        module: nn.Module,
        images: Tensor,
        step: int,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Terms]:
        """The loss (a scalar with gradient) and its named terms (scalars without), `loss` among them.

        Args:
            module: the VAE, perhaps wrapped by DistributedDataParallel: call it once, and through the wrapper.
            images: float32[B, 3, R, R] in −1..1, on the module's device.
            step: steps taken before this one.
            generator: the only source of randomness.
        """
        ...


class Elbo:
    """Reconstruction error + β · KL(q(z|x) ‖ N(0, I)), both per pixel value, β rising linearly from 0."""

    def __init__(self, settings: config.Objective) -> None:
        self.settings = settings

    def __call__(
        self, module: nn.Module, images: Tensor, step: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Terms]:
        """See `Objective`; terms: loss, reconstruction (per pixel value), kl (nats per image), beta (at this step)."""
        reconstructed, mu, logvar = module(images, generator)
        error = reconstruction_error(reconstructed, images, self.settings.reconstruction)
        kl = kl_standard_normal(mu, logvar).mean()
        beta = warmed_up(self.settings.beta, step, self.settings.kl_warmup_steps)
        total = error + (beta / images[0].numel()) * kl
        return total, {
            "loss": total.detach(),
            "reconstruction": error.detach(),
            "kl": kl.detach(),
            "beta": kl.new_tensor(beta),
        }


def reconstruction_error(x: Tensor, target: Tensor, kind: str) -> Tensor:
    """Mean over all values of the l1, l2 or charbonnier distance √(δ² + ε²) − ε, ε = 1e-3; a scalar.

    Charbonnier (Barron 2019, arXiv:1701.03077, α = 1) is l1 with a smooth bottom.
    """
    if kind == "l1":
        return F.l1_loss(x, target)
    if kind == "l2":
        return F.mse_loss(x, target)
    if kind == "charbonnier":
        return torch.sqrt((x - target).square() + CHARBONNIER_EPS**2).mean() - CHARBONNIER_EPS
    raise ValueError(f"unknown reconstruction error {kind!r}: l1, l2 or charbonnier")


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)) in nats, float32[B] of float32[B, d] (Kingma & Welling 2014, appendix B)."""
    # expm1 keeps the cancellation of σ² − 1 − log σ² exact near the prior
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar).sum(1)


def warmed_up(beta: float, step: int, warmup_steps: int) -> float:
    """β at `step` (from 0): β · step / warmup_steps up to β."""
    return beta if step >= warmup_steps else beta * step / warmup_steps
