"""An encoder and a decoder in files of their own: TorchScript (`.pt`), or programs of torch.export (`.pt2`).

A program in such a file is run by torch, in torch's own operators; Python unpickles nothing of it. For `.pt2` that has
to be seen to (`exported.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from torch import Tensor, nn

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.adapters.exported import load_exported
from ldsaug_ray.models.adapters.pretrained import Pretrained
from ldsaug_ray.models.torchscript import load_torchscript

EXPORTED = ".pt2"
_LEAST_AND_MOST = {"unit": (0.0, 1.0), "symmetric": (-1.0, 1.0), "bytes": (0.0, 255.0)}


def open_files(settings: Vae, resolution: int) -> Pretrained:
    """The networks in the files `settings.encoder` and `settings.decoder`; raises as `open_pretrained`."""
    own, files = read_files(settings)
    return _adapted(settings.model_copy(update=own), resolution, files, (str(settings.encoder), str(settings.decoder)))


def read_files(settings: Any) -> tuple[dict[str, str], dict[str, bytes]]:
    """Of the two files that settings name: what a run calls them, part -> name, and name -> content."""
    files, own = {}, {}
    for part in ("encoder", "decoder"):
        location = Location.of(getattr(settings, part))
        if not location.exists():
            raise InputError(f"vae.{part}: there is no file {location.uri}")
        own[part] = part + (EXPORTED if PurePosixPath(location.path).suffix == EXPORTED else ".pt")
        files[own[part]] = location.read_bytes()
    return own, files


def networks(settings: Any, files: Mapping[str, bytes], names: tuple[str, str]) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of files by the names that `settings` give them."""

    def load(file: str, name: str) -> nn.Module:
        return (load_exported if file.endswith(EXPORTED) else load_torchscript)(files[file], name)

    return load(settings.encoder, names[0]), load(settings.decoder, names[1])


def from_files(settings: Vae, resolution: int, files: Mapping[str, bytes], name: str) -> Pretrained:
    """The same from copies of the files; raises as `rebuild`."""
    return _adapted(settings, resolution, files, (f"{name}, {settings.encoder}", f"{name}, {settings.decoder}"))


class _Encoder(nn.Module):
    """Pixels in −1..1 to what the file makes of them in its own range."""

    def __init__(self, net: nn.Module, pixel_range: str) -> None:
        super().__init__()
        self.net = net
        self.least, self.most = _LEAST_AND_MOST[pixel_range]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """float32[B, 3, R, R] -> latents, perhaps with log σ²."""
        # contiguous: a traced or exported program may have been told that its input is
        return self.net(((x + 1) * ((self.most - self.least) / 2) + self.least).contiguous())


class _Decoder(nn.Module):
    """Latents to pixels in −1..1."""

    def __init__(self, net: nn.Module, pixel_range: str) -> None:
        super().__init__()
        self.net = net
        self.least, self.most = _LEAST_AND_MOST[pixel_range]

    def forward(self, z: Tensor) -> Tensor:
        """Latents -> float32[B, 3, R, R]."""
        found = self.net(z.contiguous())
        return (found - self.least) * (2 / (self.most - self.least)) - 1 if isinstance(found, Tensor) else found


def _adapted(settings: Vae, resolution: int, files: Mapping[str, bytes], names: tuple[str, str]) -> Pretrained:
    assert settings.pixel_range is not None  # the settings see to it
    nets = networks(settings, files, names)
    encoder, decoder = _Encoder(nets[0], settings.pixel_range), _Decoder(nets[1], settings.pixel_range)
    return Pretrained(settings, resolution, encoder, decoder, files, names)
