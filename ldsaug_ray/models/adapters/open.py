"""From settings to a pretrained autoencoder: first from the files that the user names, later from the copies in a run.

A run keeps what the network is (the TorchScript files, or diffusers' configuration) beside its weights in
`vae.safetensors`. So the user's files are read once, by stage `train`, and may vanish afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Vae
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.adapters import diffusers, torchscript
from ldsaug_ray.models.adapters.pretrained import Pretrained


def open_pretrained(settings: Vae, resolution: int) -> Pretrained:
    """The autoencoder that the settings name, on the CPU in evaluation mode, tried out on images.

    Raises:
        InputError: a file is missing, damaged, of another format, does not fit images of this resolution, draws random
            numbers, mixes the images of a batch, or makes one latent of all; the message names it.
        StorageError: a file cannot be read.
        ResourceError: the kind needs a package that is not installed.
    """
    if not settings.is_pretrained:
        raise ValueError(f"kind {settings.kind} is built, not opened; see build_vae")
    opened = diffusers.open_directory if settings.kind == "diffusers" else torchscript.open_files
    model = opened(settings, resolution)
    model.try_out()
    return model


def rebuild(settings: Vae, resolution: int, files: Mapping[str, bytes], name: str) -> Pretrained:
    """The same network from the files that a `Pretrained` keeps; weights are to be loaded into it.

    Args:
        files: name -> content.
        name: of the checkpoint, for messages.

    Raises:
        InputError: a file is missing or damaged.
        ResourceError: the kind needs a package that is not installed.
    """
    require(files, [settings.path, settings.encoder, settings.decoder], name)
    if settings.kind == "diffusers":
        return diffusers.from_config(settings, resolution, files, name)
    return torchscript.from_files(settings, resolution, files, name)


def require(files: Mapping[str, bytes], names: Sequence[str | None], where: str) -> None:
    """Raise InputError where a copy of a file is missing."""
    if missing := [n for n in names if n is not None and n not in files]:
        raise InputError(f"{where}: its copy of {', '.join(missing)} is missing")


def pretrained_stamp(settings: Any) -> str:
    """SHA-256 over sizes and times of the files that the settings name; '' where the network is our own.

    Raises:
        InputError: a file is not there, or a directory is none of diffusers that is read here.
        StorageError: it cannot be looked at.
    """
    files = [Location.of(uri) for uri in (settings.encoder, settings.decoder) if uri is not None]
    if getattr(settings, "path", None) is not None:
        files = diffusers.stored(Location.of(settings.path))
    if not files:
        return ""
    if missing := [f.uri for f in files if not f.exists()]:
        raise InputError(f"{missing[0]}: there is no such file")
    infos = [file.info() for file in files]
    return fingerprint([[info.size, info.mtime_ns] for info in infos])
