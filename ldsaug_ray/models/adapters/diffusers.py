"""Autoencoders of Hugging Face diffusers, from a directory that `save_pretrained` wrote.

LDS sees latents as a diffusion model does: (z − shift) · scale, with `scaling_factor`, and `shift_factor` or
`latents_mean` and `latents_std`, of the directory's configuration (Rombach et al. 2022, arXiv:2112.10752, section
D.1; in diffusers the pipelines do it, not the autoencoder). The decoder gets them unscaled. Both classes take and give
pixels in −1..1; AutoencoderTiny turns them to the 0..1 of its weights by itself. Its `scale_latents`, for storing
latents as bytes, plays no part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError, ResourceError
from ldsaug_ray.models.adapters.pretrained import Pretrained

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def open_directory(settings: Vae, resolution: int) -> Pretrained:
    """The autoencoder in the directory `settings.path`; raises as `open_pretrained`."""
    assert settings.path is not None  # the settings see to it
    folder = Location.of(settings.path)
    config = _read_config(folder)
    _check_weights(folder, str(config["_class_name"]))
    network = _load(folder, config)
    # what is not needed to build it again differs between copies of the same directory
    kept = {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}
    content = json.dumps(kept, sort_keys=True).encode()
    own = settings.model_copy(update={"path": CONFIG})
    return _adapted(network, own, resolution, {CONFIG: content}, folder.uri)


def from_config(settings: Vae, resolution: int, files: Mapping[str, bytes], name: str) -> Pretrained:
    """The network of a configuration, its weights still to be loaded; raises as `rebuild`."""
    config = _parsed(files[CONFIG], f"{name}, {CONFIG}")
    with _quiet():
        try:
            network = _class_of(config, name).from_config(_plain(config))
        except (TypeError, ValueError, KeyError) as e:
            raise InputError(f"{name}: its copy of {CONFIG} describes no autoencoder ({_reason(e)})") from None
    return _adapted(network, settings, resolution, files, name)


class _Scaled(nn.Module):
    """Latents between the network's scale and LDS's: z -> (z − shift) · scale; numbers, or one for each channel."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        super().__init__()
        factor, shift = config.get("scaling_factor"), config.get("shift_factor")
        scale = torch.tensor(1.0 if factor is None else float(factor), dtype=torch.float64)
        offset = torch.tensor(0.0 if shift is None else float(shift), dtype=torch.float64)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            offset, scale = torch.tensor(mean, dtype=torch.float64), scale / torch.tensor(std, dtype=torch.float64)
        if not (torch.isfinite(scale).all() and (scale != 0).all() and torch.isfinite(offset).all()):
            raise InputError(f"{name}: {CONFIG} scales latents by {scale.tolist()} about {offset.tolist()}")
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
        found = self.net(x)
        if self.quant is not None:
            found = self.quant(found)
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


def _read_config(folder: Location) -> dict[str, Any]:
    if not folder.exists():
        raise InputError(f"vae.path: there is no directory {folder.uri}")
    names = folder.names()
    if "model_index.json" in names:
        raise InputError(f"vae.path: {folder.uri} is a whole pipeline; give its folder with the autoencoder (vae)")
    if CONFIG not in names:
        shown = ", ".join(names[:5]) or "nothing"
        raise InputError(f"vae.path: {folder.uri} has no {CONFIG}, as save_pretrained writes it; found {shown}")
    config = _parsed((folder / CONFIG).read_bytes(), (folder / CONFIG).uri)
    _class_of(config, (folder / CONFIG).uri)
    return config


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as e:
        raise InputError(f"{name}: not valid JSON ({e})") from None
    if not isinstance(config, dict):
        raise InputError(f"{name}: not a configuration of diffusers")
    return config


def _class_of(config: Mapping[str, Any], name: str) -> Any:
    found = config.get("_class_name")
    if found not in CLASSES:
        raise InputError(f"{name}: an autoencoder of class {found} is not known here; possible: {', '.join(CLASSES)}")
    if find_spec("diffusers") is None:
        raise ResourceError("vae.kind: diffusers needs the package; run pip install 'ldsaug_ray[diffusers]'")
    import diffusers

    return getattr(diffusers, found)


def _check_weights(folder: Location, kind: str) -> None:
    names = folder.names()
    if WEIGHTS in names:
        return
    others = [n for n in names if n.endswith((".bin", ".safetensors", ".pt", ".ckpt"))]
    advice = ""
    if any(n.endswith(".bin") for n in others):
        advice = (
            '; a .bin file is unpickled, which can run code. Convert it where you trust it: python -c "from diffusers '
            f"import {kind}; {kind}.from_pretrained('{folder.path}', use_safetensors=False)"
            f".save_pretrained('{folder.path}')\""
        )
    raise InputError(f"vae.path: {folder.uri} has no {WEIGHTS}; found {', '.join(others) or 'no weights'}{advice}")


def _load(folder: Location, config: Mapping[str, Any]) -> Any:
    """The network with its weights, by diffusers' own loader: it knows the older names of some weights."""
    with TemporaryDirectory(prefix="ldsaug-") as temporary, _quiet():
        for name in (CONFIG, WEIGHTS):  # nothing else, so that nothing else can be loaded
            (Path(temporary) / name).write_bytes((folder / name).read_bytes())
        (Path(temporary) / CONFIG).write_text(json.dumps(_plain(config)))
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
            reason = _reason(e).replace(temporary, folder.uri)
            raise InputError(f"{folder.uri}: diffusers cannot load it ({reason})") from None
    wrong = {k: sorted(map(str, report.get(k) or [])) for k in ("missing_keys", "mismatched_keys", "unexpected_keys")}
    for words, keys in wrong.items():
        if keys:  # diffusers itself would go on with random weights
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            where = (folder / WEIGHTS).uri
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
    if find_spec("diffusers") is None:
        yield  # the error comes from who needs it
        return
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
