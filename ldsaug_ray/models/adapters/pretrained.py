"""A pretrained encoder and decoder as one codec, that can be tried out: `Brought`, and of images `Pretrained`.

Its parts speak pixels in −1..1, or rows, and latents on the scale that LDS is to see; what the files themselves take
and give is the business of the module that opened them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError, is_out_of_memory
from ldsaug_ray.models.autoencoder import Autoencoder, to_float, to_uint8
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.stylegan2.layers import NoiseMode

TRIED_PIXELS = 2**18  # of the largest batch of the trial: 64 images of 64 px


class Brought(Codec):
    """Latents of any shape, [C, h, w] or [d], are flattened for LDS and given their shape again for the decoder.

    Attributes:
        names: what to call the two parts in messages.
        size: of an item, for messages.
        latent_shape: of one latent, as the encoder gives it.
        output_shape: of one item, as encoder and decoder have it.
    """

    names: tuple[str, str]
    size: str
    latent_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def take(self, encoder: nn.Module, decoder: nn.Module, files: Mapping[str, bytes], names: tuple[str, str]) -> None:
        """Make the parts its own.

        Args:
            encoder: what `entering` gives -> latents float32[B, ...], or a list or tuple of them, or of (μ, log σ²).
            decoder: such latents -> float32[B, *output_shape].
            files: what the network can be built from again, weights apart: name -> content.
            names: what to call the two parts in messages.

        Raises:
            InputError: the parts do not fit each other or the items; the message names the file.
        """
        self.encoder, self.decoder, self.files, self.names = encoder, decoder, dict(files), names
        for parameter in self.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # files often hold frozen ones; what is frozen here, the settings say
        self.eval()
        self._fitting(self.made_up()[:2])

    def made_up(self) -> Tensor:
        """Items to try it on, at least two, as `to_tensor` gives them."""
        raise NotImplementedError

    def entering(self, items: Tensor) -> Tensor:
        """What the encoder takes of items."""
        return items

    def stored(self, output: Tensor) -> Tensor:
        """What is kept of what the decoder gives."""
        return output

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        """As of `Codec`; InputError, with the file's name, where the encoder raises."""
        mu, *logvar = _parts(self._called(self.encoder, self.entering(items), f"{self.names[0]}: the encoder"))
        return mu.flatten(1).float(), logvar[0].flatten(1).float() if logvar else None

    def decode(self, z: Tensor, noise: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """As of `Codec`, without noise; InputError, with the file's name, where the decoder raises."""
        given = z.reshape(len(z), *self.latent_shape)
        item: Tensor = self._called(self.decoder, given, f"{self.names[1]}: the decoder").float()
        return item

    def structure(self) -> str:
        """The files and how they are used: the same weights in another network are another model."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        return json.dumps([self.settings.kind, getattr(self.settings, "pixel_range", None), digests], sort_keys=True)

    def try_out(self) -> None:
        """Encode and decode as many items as stages take at a time, and one of them alone, three times.

        Raises:
            InputError: what came is not what an autoencoder of such items gives, or not a function of the item.
        """
        items = self.made_up()
        with torch.inference_mode():
            together, alone = self._fitting(items), self._fitting(items[:1])
            if (together[0] - together[0][0]).abs().max() <= 1e-6 * together[0].abs().max():
                raise InputError(f"{self.names[0]}: the encoder gives the same latent for different {self.unit}")
            # TorchScript may change its program after the first runs: these two come after them
            z = alone[0].flatten(1)
            latents = [[part for part in self.encode(items[:1]) if part is not None] for _ in range(2)]
            outputs = [[self.stored(self.decode(z))] for _ in range(2)]
        for k, (part, (first, second)) in enumerate((("encoder", latents), ("decoder", outputs))):
            if not all(map(torch.equal, first, second)):
                raise InputError(
                    f"{self.names[k]}: the {part} gives something else each time for the same input: it draws random "
                    "numbers (a sampled latent, noise, or dropout of a network that was saved in training mode). Save "
                    "one that does not, such as an encoder that gives the mean, after .eval()"
                )
            if (together[k][:1] - alone[k]).abs().mean() > 0.01 * together[k][:1].abs().mean():  # rounding: far less
                raise InputError(
                    f"{self.names[k]}: the {part} gives something else where other {self.unit} are in the batch (such "
                    "as batch normalisation of a network that was saved in training mode). Save it after .eval()"
                )

    def _fitting(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and outputs, seen to be of the shapes and dtypes that they must have; learns the latents' shape."""
        with torch.inference_mode():
            parts = _parts(self._called(self.encoder, self.entering(items), f"{self.names[0]}: the encoder"))
            self.latent_shape = self._latent_of(parts, len(items), self.names[0])
            self.latent_dim = torch.Size(self.latent_shape).numel()
            z = parts[0].contiguous()  # as stages give it to the decoder: other strides, other last digits
            output = self._called(self.decoder, z, f"{self.names[1]}: the decoder")
        self._check_output(output, z, self.names[1])
        return z, output

    def _check_output(self, output: Any, z: Tensor, name: str) -> None:
        wanted = [len(z), *self.output_shape]
        what = f"the decoder, given latents {list(z.shape)},"
        _check(output, name, what)
        if list(output.shape) != wanted:
            stride, side = "", wanted[-1]
            if z.ndim == 4 and side % z.shape[2]:
                stride = f"; the encoder's stride does not divide {side} px: give another data.resolution"
            raise InputError(f"{name}: {what} gives {list(output.shape)}; expected {wanted}{stride}")

    def _called(self, part: nn.Module, given: Tensor, what: str) -> Any:
        try:
            return part(given)
        except Exception as e:  # whatever a foreign network raises
            if is_out_of_memory(e):
                raise
            lines = [line.strip() for line in str(e).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(e).__name__
            raise InputError(
                f"{what} fails on float32{list(given.shape)} ({reason[:300]}); it must take any number of {self.unit} "
                "of this size in float32"
            ) from e

    def _latent_of(self, parts: list[Any], n: int, name: str) -> tuple[int, ...]:
        what = f"the encoder, given {n} {self.unit} of {self.size},"
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


class Pretrained(Brought, Autoencoder):
    """Of images.

    Args:
        settings: section `vae`; where it names the user's files, `files` has their copies.
        resolution: side of the images, px.
        encoder, decoder, files, names: as of `take`: pixels float32[B, 3, R, R], nominally −1..1.
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
        self.settings, self.resolution = settings, resolution
        self.size, self.output_shape = f"{resolution} px", (3, resolution, resolution)
        self.take(encoder, decoder, files, names)

    def made_up(self) -> Tensor:
        """As of `Brought`."""
        return _pictures(self.resolution)

    def entering(self, items: Tensor) -> Tensor:
        """As of `Brought`."""
        return to_float(items)

    def stored(self, output: Tensor) -> Tensor:
        """As of `Brought`."""
        return to_uint8(output)


def _pictures(side: int) -> Tensor:
    """Noise, brighter and darker: uint8[N, side, side, 3] with N at least 2, and at most 64 as stages have it."""
    n = min(64, max(2, TRIED_PIXELS // side**2))
    noise = np.random.default_rng(0).integers(0, 256, (n, side, side, 3))
    return torch.from_numpy((noise * np.linspace(1, 0.25, n).reshape(-1, 1, 1, 1)).astype(np.uint8))


def _parts(found: Any) -> list[Any]:
    """Latents, perhaps with log σ², of what an encoder gives: a tensor, or a list or tuple of one or two."""
    return list(found) if isinstance(found, tuple | list) else [found]


def _check(found: Any, name: str, what: str) -> None:
    if not isinstance(found, Tensor):
        raise InputError(f"{name}: {what} gives {type(found).__name__}; expected a float32 tensor")
    if found.dtype != torch.float32:
        kind = str(found.dtype).removeprefix("torch.")
        raise InputError(f"{name}: {what} gives {kind}; expected float32 (save it with .float())")
    if not torch.isfinite(found).all():
        raise InputError(f"{name}: {what} gives values that are not finite")
