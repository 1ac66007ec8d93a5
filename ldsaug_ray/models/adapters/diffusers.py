"""Autoencoders of Hugging Face diffusers, from a directory that `save_pretrained` wrote.

LDS sees latents as a diffusion model does: (z − shift) · scale, with `scaling_factor`, and `shift_factor` or
`latents_mean` and `latents_std`, of the directory's configuration (Rombach et al. 2022, arXiv:2112.10752, section
D.1; in diffusers the pipelines do it, not the autoencoder). The decoder gets them unscaled. Both classes take and give
pixels in −1..1; AutoencoderTiny turns them to the 0..1 of its weights by itself. Its `scale_latents`, for storing
latents as bytes, plays no part.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pyarrow.fs import FileType
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ldsaug_ray.common.pointers import POINTER_BYTES, pointer
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError, ResourceError, is_out_of_memory
from ldsaug_ray.models.adapters.pretrained import Pretrained

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def open_directory(settings: Vae, resolution: int) -> Pretrained:
    """The autoencoder in the directory `settings.path`; raises as `open_pretrained`."""
    assert settings.path is not None  # the settings see to it
    folder = Location.of(settings.path)
    config = _read_config(folder)
    network = _load(folder, config)
    # what is not needed to build it again differs between copies of the same directory
    kept = {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}
    content = json.dumps(kept, sort_keys=True).encode()
    own = settings.model_copy(update={"path": CONFIG})
    return _adapted(network, own, resolution, {CONFIG: content}, folder.uri)


def from_config(settings: Vae, resolution: int, files: Mapping[str, bytes], name: str) -> Pretrained:
    """The network of a configuration, its weights still to be loaded; raises as `rebuild`."""
    where = f"{name}, {CONFIG}"
    return _adapted(_built(_parsed(files[CONFIG], where), where), settings, resolution, files, name)


def stored(folder: Location) -> list[Location]:
    """The two files that are read, seen to be such as are read here; raises as `open_pretrained`."""
    _read_config(folder)
    return [folder / CONFIG, folder / WEIGHTS]


class _Scaled(nn.Module):
    """Latents between the network's scale and LDS's: z -> (z − shift) · scale; numbers, or one for each channel."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        super().__init__()
        scale, offset = _numbers(config, "scaling_factor", 1.0, name), _numbers(config, "shift_factor", 0.0, name)
        mean, std = _numbers(config, "latents_mean", 0.0, name), _numbers(config, "latents_std", 1.0, name)
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            offset, scale = mean, scale / std
        if not (torch.isfinite(scale).all() and (scale != 0).all()):
            raise InputError(f"{name}/{CONFIG}: scaling_factor and latents_std scale latents by {scale.tolist()}")
        # no weights: they follow from the configuration
        self.register_buffer("scale", scale.float().reshape(-1, 1, 1), persistent=False)
        self.register_buffer("shift", offset.float().reshape(-1, 1, 1), persistent=False)


class _Encoder(_Scaled):
    """Pixels in −1..1 to scaled latents [B, C, h, w], with log σ² where the network has a posterior."""

    def __init__(self, network: Any, config: Mapping[str, Any], name: str) -> None:
        super().__init__(config, name)
        self.net = network.encoder
        self.posterior = hasattr(network, "quant_conv")  # AutoencoderKL, where it may be None all the same
        self.quant = network.quant_conv if self.posterior else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """float32[B, 3, R, R] -> float32[B, C, h, w], or a pair of them."""
        found = self.net(x) if self.quant is None else self.quant(self.net(x))
        if not self.posterior:
            return (found - self.shift) * self.scale
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        posterior = DiagonalGaussianDistribution(found)  # its own bounds of log σ²
        return (posterior.mean - self.shift) * self.scale, posterior.logvar + 2 * self.scale.abs().log()


class _Decoder(_Scaled):
    """Scaled latents [B, C, h, w] to pixels, nominally in −1..1."""

    def __init__(self, network: Any, config: Mapping[str, Any], name: str) -> None:
        super().__init__(config, name)
        self.net = network.decoder
        self.quant = getattr(network, "post_quant_conv", None)

    def forward(self, z: Tensor) -> Tensor:
        """float32[B, C, h, w] -> float32[B, 3, R, R]."""
        z = z / self.scale + self.shift
        return self.net(z if self.quant is None else self.quant(z))


def _adapted(network: Any, settings: Vae, resolution: int, files: Mapping[str, bytes], name: str) -> Pretrained:
    config = json.loads(files[CONFIG])
    parts = _Encoder(network, config, name), _Decoder(network, config, name)
    return Pretrained(settings, resolution, *parts, files, (name, name))


def _numbers(config: Mapping[str, Any], field: str, default: float, name: str) -> Tensor:
    """A field's number, or its number for each channel (`latents_*`), in float64."""
    found = config.get(field)
    per_channel = field.startswith("latents_")
    listed = found if per_channel else [found]
    n = int(config.get("latent_channels", 4)) if per_channel else 1
    is_number = [type(x) in (int, float) and math.isfinite(x) for x in listed] if isinstance(listed, list) else []
    if found is not None and (not all(is_number) or len(is_number) != n):
        expected = f"a list of {n} numbers, one for each of latent_channels" if per_channel else "a number"
        raise InputError(f"{name}/{CONFIG}: {field} is {json.dumps(found)[:80]}; expected {expected}")
    return torch.tensor(default if found is None else found, dtype=torch.float64)


def _read_config(folder: Location) -> dict[str, Any]:
    """The configuration of a directory that has all that is needed, and no other kind of weights."""
    if not folder.exists():
        raise InputError(f"vae.path: there is no directory {folder.uri}")
    if folder.info().type == FileType.File:
        raise InputError(f"vae.path: {folder.uri} is a file; give the folder that it lies in")
    names = folder.names()
    if "model_index.json" in names or (CONFIG not in names and "vae" in names):
        part = (folder / "vae").uri
        raise InputError(f"vae.path: {folder.uri} is a whole pipeline; give its autoencoder alone, as a rule {part}")
    if CONFIG not in names:
        shown = ", ".join(names[:5]) or "nothing"
        raise InputError(f"vae.path: {folder.uri} has no {CONFIG}, as save_pretrained writes it; found {shown}")
    config = _parsed(_content(folder / CONFIG), (folder / CONFIG).uri)
    kind = _kind(config, (folder / CONFIG).uri)
    if WEIGHTS not in names:
        raise InputError(f"vae.path: {folder.uri} has no {WEIGHTS}; {_other_weights(folder, names, kind)}")
    return config


def _content(file: Location) -> bytes:
    content = file.read_bytes()
    if what := pointer(content[:POINTER_BYTES]):
        raise InputError(f"{file.uri}: {what}")
    return content


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as e:
        raise InputError(f"{name}: not valid JSON ({e})") from None
    if not isinstance(config, dict) or "_class_name" not in config:
        raise InputError(f"{name}: not a configuration of diffusers, which has a field _class_name")
    return config


def _kind(config: Mapping[str, Any], where: str) -> str:
    found = config.get("_class_name")
    if found not in CLASSES:
        raise InputError(f"{where}: class {found} is not known here; possible: {', '.join(CLASSES)}")
    return str(found)


def _class_of(config: Mapping[str, Any], where: str) -> Any:
    kind = _kind(config, where)
    if find_spec("diffusers") is None:
        raise ResourceError("vae.kind: diffusers needs the package; run pip install 'ldsaug_ray[diffusers]'")
    import diffusers

    return getattr(diffusers, kind)


def _other_weights(folder: Location, names: Sequence[str], kind: str) -> str:
    """What weights there are in place of those that are read, and the command that writes those."""
    others = [n for n in names if n.endswith((".bin", ".safetensors", ".pt", ".ckpt", ".index.json"))]
    found = f"found {', '.join(others[:5]) or 'no weights'}{', …' * (len(others) > 5)}"
    pattern = re.compile(r"diffusion_pytorch_model(?:\.(\w+))?\.(safetensors|bin)")
    named = [m for n in others if (m := pattern.fullmatch(n))]
    if any(n.endswith(".index.json") for n in others):
        why, how = "Weights in several files are not read", ""
    elif named:
        variant, ending = min(named, key=lambda m: m[2] == "bin").groups()
        why = f"The variant {variant} is not read" if variant else ""
        how = f", variant={variant!r}" if variant else ""
        if ending == "bin":
            why = "A .bin file is unpickled, which can run code: convert it where you trust it"
            how += ", use_safetensors=False"
    else:
        return found
    place = folder.path if folder.is_local else f"copy-of-{folder.name}"
    code = (
        f"from diffusers import {kind}; {kind}.from_pretrained({place!r}{how}).save_pretrained({place!r}, "
        "max_shard_size='1TB')"
    )
    return f"{found}. {why}. To write the file that is: python -c {shlex.quote(code)}"


def _built(config: Mapping[str, Any], where: str) -> Any:
    """The network of a configuration, its weights random."""
    kind = _class_of(config, where)
    with _quiet():
        try:
            return kind.from_config(_plain(config))
        except Exception as e:  # whatever the layers' own code raises where a field is of no use to them
            if is_out_of_memory(e):
                raise
            reason = _of_another_type(kind, config) or _reason(e)
            raise InputError(f"{where}: describes no {config['_class_name']} ({reason})") from None


def _of_another_type(kind: Any, config: Mapping[str, Any]) -> str:
    """Fields that are of another type than their defaults: the layers' own errors do not name them."""

    def types(value: Any) -> set[type]:
        return {list}.union(*map(types, value)) if isinstance(value, list | tuple) else {type(value)}

    defaults = {k: v.default for k, v in signature(kind.__init__).parameters.items() if k in config}
    wrong = {k: v for k, v in defaults.items() if v is not None and types(config[k]) != types(v)}
    return "; ".join(f"{k} is {json.dumps(config[k])[:80]}, expected such as {json.dumps(v)}" for k, v in wrong.items())


def _load(folder: Location, config: Mapping[str, Any]) -> Any:
    """The network with its weights, by diffusers' own loader: it knows the older names of some weights."""
    with torch.device("meta"):  # whether the configuration is one, before the weights are read
        _built(config, (folder / CONFIG).uri)
    where = (folder / WEIGHTS).uri
    with TemporaryDirectory(prefix="ldsaug-") as temporary, _quiet():
        for name in (CONFIG, WEIGHTS):  # nothing else, so that nothing else can be loaded
            (Path(temporary) / name).write_bytes(_content(folder / name))
        (Path(temporary) / CONFIG).write_text(json.dumps(_plain(config)))
        try:
            with safe_open(Path(temporary) / WEIGHTS, "pt"):
                pass  # looks at the header, and whether the file is as long as that says
        except SafetensorError as e:
            raise InputError(f"{where}: truncated or damaged, or not a safetensors file ({_reason(e)})") from None
        try:
            network, report = _class_of(config, folder.uri).from_pretrained(
                temporary,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as e:  # OSError, ValueError, RuntimeError, SafetensorError, TypeError: as diffusers has it
            if is_out_of_memory(e):
                raise
            reason = _reason(e).replace(temporary, folder.uri)
            raise InputError(f"{where}: diffusers cannot load it ({reason})") from None
    wrong = {k: sorted(map(str, report.get(k) or [])) for k in ("missing_keys", "mismatched_keys", "unexpected_keys")}
    for words, keys in wrong.items():
        if keys:  # diffusers itself would go on with random weights
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise InputError(f"{where}: does not fit {CONFIG}: {words.replace('_', ' ')} {', '.join(keys[:3])}{more}")
    return network


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what AutoencoderTiny writes into its configuration but does not take."""
    if config.get("_class_name") != "AutoencoderTiny":
        return dict(config)
    return {k: v for k, v in config.items() if k != "block_out_channels"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Remarks of diffusers off: what matters of them is an error here."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        lines = [f"does not fit {CONFIG}: {lines[1]}"]
    return lines[0][:300] if lines else type(error).__name__
