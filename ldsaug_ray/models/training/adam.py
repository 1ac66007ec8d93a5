"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101) as PyTorch has it, without PyTorch's
compiler: every optimiser of PyTorch's imports that at its first call, 1.3 s that a plain step has no use for.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


def _plain(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method beneath the wrapper that keeps it out of compiled code."""
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """As torch.optim.AdamW, bit for bit."""

    add_param_group = _plain(Optimizer.add_param_group)
    zero_grad = _plain(Optimizer.zero_grad)
    state_dict = _plain(Optimizer.state_dict)
    load_state_dict = _plain(Optimizer.load_state_dict)
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))
