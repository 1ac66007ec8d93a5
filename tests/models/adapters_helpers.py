"""Small autoencoders of other people: in TorchScript, as exported programs, and diffusers' own with random weights."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldsaug_ray.config import Vae


class Down(nn.Module):
    """Pixels to latents [N, 4, h, w] at a quarter of the side, with a batch normalisation that has two modes."""

    def __init__(self, stride: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, stride, stride)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Up(nn.Module):
    """Back to pixels."""

    def __init__(self, stride: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(4, channels, stride, stride)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(z)


class Vector(nn.Module):
    """Pixels to the pair of mean and log variance, [N, 5] each."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * side * side, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.linear(x.flatten(1))
        return found[:, :5], found[:, 5:]


class Picture(nn.Module):
    """Vectors to pixels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.linear, self.side = nn.Linear(5, 3 * side * side), side

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z).view(-1, 3, self.side, self.side)


def script(module: nn.Module, path: Path) -> Path:
    """Write TorchScript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.(script|save)` is deprecated")
        torch.jit.save(torch.jit.script(module.eval()), path)
    return path


def export(module: nn.Module, path: Path, given: Tensor, *, any_number: bool = True) -> Path:
    """Write a program of torch.export."""
    shapes = ({0: torch.export.Dim("n", min=1, max=4096)},) if any_number else None
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module.eval(), (given,), dynamic_shapes=shapes), buffer)
    path.write_bytes(buffer.getvalue())
    return path


def files(encoder: Path, decoder: Path, pixel_range: str = "unit") -> Vae:
    """Settings of a pair of files."""
    return Vae.model_validate(
        {"kind": "torchscript", "encoder": str(encoder), "decoder": str(decoder), "pixel_range": pixel_range}
    )


def tiny_kl(**changes: Any) -> Any:
    """A small AutoencoderKL, random weights, 16 px -> [4, 8, 8]."""
    from diffusers import AutoencoderKL

    given = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "scaling_factor": 0.4,
        **changes,
    }
    return AutoencoderKL(**given).eval()


def tiny_tiny(**changes: Any) -> Any:
    """A small AutoencoderTiny, random weights, 16 px -> [4, 8, 8]."""
    from diffusers import AutoencoderTiny

    blocks = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
    return AutoencoderTiny(num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **blocks, **changes).eval()


def directory(path: Path) -> Vae:
    """Settings of a directory."""
    return Vae.model_validate({"kind": "diffusers", "path": str(path)})
