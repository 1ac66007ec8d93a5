"""A pretrained encoder and decoder as one `Autoencoder`, tried out when it is opened.

Its parts speak pixels in −1..1 and latents on the scale that LDS is to see; what the files themselves take and give is
the business of the module that opened them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.autoencoder import Autoencoder
from ldsaug_ray.models.stylegan2.layers import NoiseMode
from ldsaug_ray.models.stylegan2.model import to_float


class Pretrained(Autoencoder):
    """Latents of any shape, [C, h, w] or [d], are flattened for LDS and given their shape again for the decoder.

    Args:
        settings: section `vae`; where it names the user's files, `files` has their copies.
        resolution: side of the images, px.
        encoder: float32[B, 3, R, R] in −1..1 -> latents float32[B, ...], or the pair (μ, log σ²) of them.
        decoder: such latents -> float32[B, 3, R, R], nominally −1..1.
        files: what the network can be built from again, weights apart: name -> content.
        names: what to call the two parts in messages.

    Attributes:
        latent_shape: of one latent, as the encoder gives it.

    Raises:
        InputError: the parts do not fit each other or images of this resolution; the message names the file.
    """

    def __init__(
        self,
        settings: Vae,
        resolution: int,
        encoder: nn.Module,
        decoder: nn.Module,
        files: Mapping[str, bytes],
        names: tuple[str, str],
    ) -> None:
        super().__init__()
        self.settings = settings
        self.resolution = resolution
        self.encoder = encoder
        self.decoder = decoder
        self.files = dict(files)
        for parameter in self.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # files often hold frozen ones; what is frozen here, the settings say
        self.eval()
        self.latent_shape = self._tried(names)
        self.latent_dim = torch.Size(self.latent_shape).numel()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Autoencoder.encode`."""
        found = self.encoder(to_float(images))
        mu, logvar = found if isinstance(found, tuple | list) else (found, None)
        return mu.flatten(1).float(), None if logvar is None else logvar.flatten(1).float()

    def decode(self, z: Tensor, noise: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """As `Autoencoder.decode`; there is no noise."""
        return self.decoder(z.reshape(len(z), *self.latent_shape)).float()

    def structure(self) -> str:
        """The files and how they are used: the same weights in another network are another model."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        return json.dumps([self.settings.kind, self.settings.pixel_range, digests], sort_keys=True)

    def _tried(self, names: tuple[str, str]) -> tuple[int, ...]:
        """Encode and decode grey images, two and one; gives the shape of a latent.

        Raises:
            InputError: what came is not what an autoencoder of this resolution gives.
        """
        side = self.resolution
        shape: tuple[int, ...] = ()
        with torch.no_grad():
            for n in (2, 1):
                images = torch.zeros(n, 3, side, side)
                found = _called(self.encoder, images, f"{names[0]}: the encoder")
                parts = list(found) if isinstance(found, tuple | list) else [found]
                shape = self._latent_of(parts, n, names[0])
                picture = _called(self.decoder, parts[0], f"{names[1]}: the decoder")
                _check(picture, names[1], f"the decoder, given latents {list(parts[0].shape)},")
                if tuple(picture.shape) != (n, 3, side, side):
                    stride = ""
                    if len(shape) == 3 and side % shape[1]:
                        stride = f"; the encoder's stride does not divide {side} px: give another data.resolution"
                    raise InputError(
                        f"{names[1]}: the decoder, given latents {list(parts[0].shape)}, gives {list(picture.shape)}; "
                        f"expected [{n}, 3, {side}, {side}]{stride}"
                    )
        return shape

    def _latent_of(self, parts: list[Any], n: int, name: str) -> tuple[int, ...]:
        side = self.resolution
        what = f"the encoder, given {n} images of {side} px,"
        for part in parts:
            _check(part, name, what)
        if len(parts) not in (1, 2) or any(p.shape != parts[0].shape for p in parts):
            raise InputError(
                f"{name}: {what} gives {', '.join(str(list(p.shape)) for p in parts) or 'nothing'}; expected latents, "
                "or mean and log variance of one shape"
            )
        shape = tuple(parts[0].shape)
        if len(shape) < 2 or shape[0] != n or 0 in shape:
            raise InputError(f"{name}: {what} gives {list(shape)}; expected [{n}, d] or [{n}, C, h, w], none of them 0")
        return shape[1:]


def _called(part: nn.Module, given: Tensor, what: str) -> Any:
    try:
        return part(given)
    except Exception as e:  # whatever a foreign network raises
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(e).__name__
        raise InputError(
            f"{what} fails on float32{list(given.shape)} ({reason[:300]}); it must take any number of images of this "
            "size in float32"
        ) from e


def _check(found: Any, name: str, what: str) -> None:
    if not isinstance(found, Tensor):
        raise InputError(f"{name}: {what} gives {type(found).__name__}; expected a float32 tensor")
    if found.dtype != torch.float32:
        kind = str(found.dtype).removeprefix("torch.")
        raise InputError(f"{name}: {what} gives {kind}; expected float32 (save it with .float())")
    if not torch.isfinite(found).all():
        raise InputError(f"{name}: {what} gives values that are not finite")
