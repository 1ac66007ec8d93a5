"""A running average of a model's weights, which samples better than the weights of any one step.

Karras et al. 2018 (arXiv:1710.10196), with the half-life counted in images and the ramp-up of StyleGAN2-ADA
(Karras et al. 2020, arXiv:2006.06676, training loop of the authors' code).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RAMP_UP = 0.05  # the half-life is at most this share of the images seen


def decay(half_life: int, seen: int, batch: int) -> float:
    """By how much the old average counts after a step of `batch` images, the first of which is number `seen`."""
    images = min(half_life, seen * RAMP_UP)
    return 0.5 ** (batch / images) if images > 0 else 0.0


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, kept: float) -> None:
    """average ← kept · average + (1 − kept) · model, for floating-point weights and buffers; others are copied."""
    old, new = average.state_dict(), model.state_dict()
    floating: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, tensor in old.items():
        if tensor.is_floating_point():
            floating[0].append(tensor)
            floating[1].append(new[name])
        else:
            tensor.copy_(new[name])
    torch._foreach_lerp_(floating[0], floating[1], 1.0 - kept)
