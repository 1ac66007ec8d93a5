"""TorchScript files: networks that users bring (feature extractors, perceptual distances, autoencoders)."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from ldsaug_ray.errors import InputError


def load_torchscript(data: bytes, name: str) -> nn.Module:
    """A TorchScript module on the CPU. It is a program: only load files of people you trust.

    Raises:
        InputError: the file, which `name` is for the message, is damaged, or no TorchScript.
    """
    try:
        with warnings.catch_warnings():  # a TorchScript file is what users have
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated")
            network: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")
    except (RuntimeError, ValueError) as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(e).__name__
        raise InputError(
            f"{name}: damaged, or not a TorchScript file ({reason}); torch.jit.save(torch.jit.script(module), file) "
            "writes one. torch.save writes pickles, which can run code, and are not read"
        ) from None
    return network
