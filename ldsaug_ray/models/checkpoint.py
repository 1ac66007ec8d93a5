"""One file per model: weights, and in the same file's header the settings that made them.

safetensors holds tensors and a string-to-string header and can run no code. The header's one entry, `ldsaug`, is JSON:
format, version, vae (settings), what the model was made for (of images their resolution), extra. Of an autoencoder
that the user brought, the files that say what the network is (TorchScript, a configuration) are in it too, as tensors
of bytes `pretrained/NAME`, their SHA-256 and the latents' dimension in the header: so one file is the whole model,
wherever it is copied to.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import pyarrow.fs as pafs
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ldsaug_ray.common.storage import Location, Place
from ldsaug_ray.config import CommonVae
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.codecs import CODECS

FORMAT = "ldsaug_ray.vae"  # in every file so far, whatever the package is called
VERSION = 1
_KEY = "ldsaug"
_NAMES_SHOWN = 3
_FILES = "pretrained/"  # before the names of files among those of the tensors
_NOT_GIVEN = ("format", "version", "vae", "extra", "latent_dim", "pretrained")  # of a header
_SOURCES = ("path", "encoder", "decoder")  # settings that say where a network came from, not what it is


def save_vae(place: Place, vae: Codec, extra: dict[str, Any] | None = None) -> None:
    """Write the model to a file, atomically.

    Args:
        place: the file, a path or URI, by custom named vae.safetensors.
        extra: anything JSON can hold, such as the step.

    Raises:
        StorageError: the file cannot be written.
        InputError: a weight is not finite.
    """
    location, tensors = Location.of(place), vae.state_dict()
    check_finite(tensors, f"{location.uri} not written")
    header = {**vae.given, "vae": vae.settings.model_dump(mode="json"), "extra": extra or {}}
    if header["vae"].get("latent_dim") is None:
        header["latent_dim"] = vae.latent_dim
    if vae.files:
        tensors = {**tensors, **_as_tensors(vae.files)}
        header["pretrained"] = {name: hashlib.sha256(content).hexdigest() for name, content in vae.files.items()}
    location.write_bytes(pack(tensors, {"format": FORMAT, "version": VERSION, **header}))


def load_vae(
    place: Place, device: torch.device | str = "cpu", *, expect: tuple[CommonVae, Mapping[str, Any]] | None = None
) -> Codec:
    """Read a model of any kind that `save_vae` wrote, in evaluation mode on `device`.

    Args:
        place: the file, or a folder with it as model.safetensors.
        expect: settings, and what the model was made for, that the file must have; where the user's files
            lay does not count.

    Raises:
        InputError: the file is missing, damaged, not ours, of another architecture than expected, or its tensors do
            not fit its own settings or are not finite; the message names which.
        ResourceError: it needs a package that is not installed.
    """
    location = Location.of(place)
    data, header = _read(location)
    try:
        kind = CODECS.get(header["vae"].get("kind", "stylegan2"))
        settings = kind.settings.model_validate(header["vae"])
        given = {name: value for name, value in header.items() if name not in _NOT_GIVEN}
        if expect is not None:
            found, wanted = _architecture(settings, given), _architecture(*expect)
            if found != wanted:
                raise InputError(f"{location.uri}: another architecture: {describe_difference(found, wanted)}")
        files = _files(data, header["pretrained"] if kind.keeps_files else {}, location.uri)
        vae = kind.rebuild(settings, given, files, location.uri)
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError, ConfigError) as e:
        raise InputError(f"{location.uri}: its header does not describe a VAE this version can build ({e})") from None
    expected = vae.state_dict()
    tensors = load_tensors(data, location.uri, {**expected, **_as_tensors(files)})
    tensors = {name: tensors[name] for name in expected}
    check_finite(tensors, location.uri)
    vae.load_state_dict(tensors)
    return vae.to(device).eval()


def read_latent_dim(place: Place) -> int:
    """Dimension d of the latents of a model that `save_vae` wrote, from the header alone.

    Raises:
        InputError: as `load_vae`, for the header.
    """
    location = Location.of(place)
    header = _read(location)[1]
    try:
        return int(header.get("latent_dim") or header["vae"]["latent_dim"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{location.uri}: its header does not say the latents' dimension") from None


def weights_digest(vae: Codec) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of every weight and buffer, sorted by name.

    It does not depend on the file's layout, or the device. Of an autoencoder that the user brought, the
    network's own files and their use count too.
    """
    digest = hashlib.sha256(vae.structure().encode())
    for name, tensor in sorted(vae.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{','.join(map(str, tensor.shape))}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def pack(tensors: Mapping[str, Tensor], header: dict[str, Any]) -> bytes:
    """A safetensors file with `header` as JSON in its metadata."""
    # cloned: safetensors refuses tensors that share memory, which a user's network may have
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return save_safetensors(plain, metadata={_KEY: json.dumps(header, sort_keys=True)})


def read_header(data: bytes, name: str, expected_format: str, version: int) -> dict[str, Any]:
    """The JSON header of a file made by `pack`.

    Raises:
        InputError: not a safetensors file, truncated in the header, or without our header, format or version.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > len(data) - 8:
            raise ValueError(f"the header should have {length} bytes, the file has {len(data)}")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (struct.error, ValueError, AttributeError) as e:
        raise InputError(f"{name}: truncated, or not a safetensors file ({e})") from None
    try:
        header = json.loads(metadata[_KEY])
        kind, found = header["format"], header["version"]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{name}: a safetensors file without the settings that ldsaug_ray keeps in its header; "
            "only files written by ldsaug_ray can be loaded"
        ) from None
    if (kind, found) != (expected_format, version):
        raise InputError(f"{name}: its format is {kind} version {found}; this is for {expected_format} {version}")
    return header


def load_tensors(data: bytes, name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, if they are `expected`'s in name, shape and dtype.

    Raises:
        InputError: truncated, or a tensor is missing, unexpected, or of another shape or dtype.
    """
    try:
        tensors = load_safetensors(data)
    except SafetensorError as e:
        raise InputError(f"{name}: truncated or damaged ({e})") from None
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError(f"{name}: {_some(missing)} missing")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{name}: {_some(unexpected)} unexpected")
    for key, tensor in tensors.items():
        want = expected[key]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise InputError(f"{name}: tensor {key} is {_describe(tensor)}, expected {_describe(want)}")
    return tensors


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise InputError, naming the tensors, if any value is NaN or infinite."""
    if bad := sorted(key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()):
        raise InputError(f"{name}: {_some(bad)} with values that are not finite; use a checkpoint from before")


def describe_difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The entries, nested ones by dotted name, in which two plain dictionaries differ."""
    a, b = _flat(found), _flat(expected)
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return "; ".join(f"{key} is {a.get(key)}, expected {b.get(key)}" for key in keys)


def _read(location: Location) -> tuple[bytes, dict[str, Any]]:
    if location.info().type == pafs.FileType.Directory:  # as `ldsaug export` writes it
        location = location / "model.safetensors"
    if not location.exists():
        raise InputError(f"{location.uri}: there is no such checkpoint file")
    data = location.read_bytes()
    return data, read_header(data, location.uri, FORMAT, VERSION)


def _architecture(settings: CommonVae, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"vae": settings.model_dump(mode="json", exclude=set(_SOURCES)), **given}


def _as_tensors(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    return {
        f"{_FILES}{name}": torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in files.items()
    }


def _files(data: bytes, digests: Mapping[str, str], name: str) -> dict[str, bytes]:
    """The user's files in a checkpoint, whole: as `save_vae` kept them.

    Raises:
        InputError: one of them is missing or damaged.
    """
    files: dict[str, bytes] = {}
    try:
        tensors = load_safetensors(data) if digests else {}
    except SafetensorError as e:
        raise InputError(f"{name}: truncated or damaged ({e})") from None
    for file, digest in digests.items():
        tensor = tensors.get(f"{_FILES}{file}")
        if tensor is None or tensor.dtype != torch.uint8:
            raise InputError(f"{name}: its copy of {file} is missing")
        files[file] = tensor.numpy().tobytes()
        if hashlib.sha256(files[file]).hexdigest() != digest:
            raise InputError(f"{name}: its copy of {file} is damaged (SHA-256 differs); run stage train again")
    return files


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"tensor{'s' * (len(names) > 1)} {', '.join(names[:_NAMES_SHOWN])}{more}"


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
