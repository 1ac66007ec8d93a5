"""Numbers that training workers share. One worker needs no process group.

Gradients are averaged by one all-reduce after the backward passes, as StyleGAN2-ADA does: the hooks of
DistributedDataParallel do not survive the double backward passes of R1 and path length regularisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_workers(tensors: Sequence[Tensor], world: int) -> list[Tensor]:
    """Each tensor's mean over `world` workers, float32, by one flat all-reduce; every worker gets the same bits.

    A NaN or infinity of one worker reaches all of them, so that all see it and none waits for ever.

    Args:
        tensors: float32, of the same shapes, in the same order, on every worker.
        world: workers of the default process group; with 1 the tensors come back as they are.
    """
    if world == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= world
    parts = flat.split([t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
