"""What `measure` is given: images of any source or of an array, at their own size, or features, one row an image."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains import DOMAINS, Domain, Unusable
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.images.decode import in_colour
from ldsaug_ray.domains.sources.walk import counted
from ldsaug_ray.errors import ConfigError, InputError, LdsaugError
from ldsaug_ray.metrics.features import Features, checked_features

Pixels = NDArray[np.uint8]

BATCH, BATCH_BYTES = 64, 128 * 2**20


class Images(ABC):
    """Images of any sizes. notes: sentences on them; fraction: more than this of them unusable is an error."""

    notes: tuple[str, ...] = ()
    fraction: float = 0.0
    domain: Domain = IMAGES

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def digest(self) -> str:
        """Of their content, in their order; hexadecimal."""

    @abstractmethod
    def read(self, rows: Sequence[int] | None = None) -> Iterator[Pixels | str]:
        """uint8[H, W, 3] of each, or of some, in order, or why it cannot be used."""

    @abstractmethod
    def names(self, rows: Sequence[int]) -> list[str]:
        """What some are called."""


class ArrayImages(Images):
    """Of an array uint8[N, H, W, C] with C 1 or 3."""

    def __init__(self, array: Pixels) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def digest(self) -> str:
        of = hashlib.blake2b(str(self.array.shape).encode(), digest_size=20)
        for image in self.array:
            of.update(np.ascontiguousarray(image).data)
        return of.hexdigest()

    def read(self, rows: Sequence[int] | None = None) -> Iterator[Pixels | str]:
        for row in range(len(self)) if rows is None else rows:
            yield in_colour(self.array[row][..., 0] if self.array.shape[3] == 1 else self.array[row])

    def names(self, rows: Sequence[int]) -> list[str]:
        return [f"row {row}" for row in rows]


class SourceItems(Images):
    """Of a source that the domain opens; listed, and read as often as is needed. made: invalid ones count."""

    def __init__(self, data: Any, domain: Domain, made: bool = False) -> None:
        self.data, self.domain, self.source, self._made = data, domain, domain.open(data), made
        self.listing = self.source.list()
        self.fraction = data.max_quarantined_fraction
        passed_over = f"passed over: {counted(self.source.passed_over)}"
        self.notes = (*self.source.notes, *([passed_over] if self.source.passed_over else []))

    def __len__(self) -> int:
        return len(self.listing)

    def digest(self) -> str:
        """As `Images.digest`. What a file cannot give counts by its reason."""
        places = {"source", "train", "test", "part_rows", "workers", "max_quarantined_fraction"}
        how = f"{self.domain.name} {self._made} {self.data.model_dump_json(exclude=places)}"
        of = hashlib.blake2b(how.encode(), digest_size=20)
        for payload, reason, _ in self.source.read(self.listing):
            content = str(reason).encode() if payload is None else payload
            of.update(hashlib.blake2b(content, digest_size=20).digest())
        return of.hexdigest()

    def read(self, rows: Sequence[int] | None = None) -> Iterator[Pixels | str]:
        some = self.listing if rows is None else self.listing.take(pa.array(rows, pa.int64()))
        for payload, reason, _ in self.source.read(some):
            try:
                if payload is None:
                    yield reason or "cannot be read"
                else:
                    yield (self.domain.made if self._made else self.domain.read_whole)(payload, self.data)
            except Unusable as e:
                yield str(e)

    def names(self, rows: Sequence[int]) -> list[str]:
        found: list[str] = self.listing["key"].take(pa.array(rows, pa.int64())).to_pylist()
        return found


def opened(name: str, given: Any, reading: Mapping[str, Any], domain: str = "images") -> Images | Features:
    """What was given for the argument `name`: a domain's items, listed and not read, or features float[N, d].

    Raises:
        InputError, StorageError, ConfigError: it cannot be used; the message begins with the argument's name.
    """
    try:
        if not isinstance(given, str | os.PathLike):
            return _of_array(name, given)
        place = os.fspath(given)
        if place.lower().endswith(".npy"):
            return _of_array(name, _npy(place))
        return SourceItems(data_settings(place, reading, domain), DOMAINS.get(domain), name == "fake")
    except LdsaugError as e:
        message = str(e).replace("data.source = ", "", 1)
        raise e if message.startswith(f"{name}:") else type(e)(f"{name}: {message}") from None


def data_settings(source: str, reading: Mapping[str, Any], domain: str = "images") -> Any:
    """Settings that read a source. Raises ConfigError for one that does not say how it is read."""
    if not source:
        raise InputError("an empty name; give a folder, a Parquet, tar or .npy file, or a URI")
    counting = DOMAINS.get(domain).reading
    if counting and (others := sorted(set(reading) - set(counting))):
        raise ConfigError(f"data.{others[0]} does not count here; possible: data.{', data.'.join(counting)}")
    return build_config({"run_dir": ".", "domain": domain, "data": {**reading, "source": source}}, []).data


def batches(read: Iterator[Pixels | str]) -> Iterator[list[Pixels | str]]:
    """Up to 64 at a time, fewer where they are large."""
    batch: list[Pixels | str] = []
    held = 0
    for image in read:
        batch.append(image)
        held += 0 if isinstance(image, str) else image.nbytes
        if len(batch) == BATCH or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _npy(place: str) -> NDArray[Any]:
    location = Location.of(place)
    try:
        if location.is_local:
            array: NDArray[Any] = np.load(location.path, mmap_mode="r", allow_pickle=False)
            return array
        return np.asarray(np.load(io.BytesIO(location.read_bytes()), allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"{place}: there is no such file") from None
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f"{place}: not an array of numbers as np.save writes it ({str(e).splitlines()[0]})") from None


def _of_array(name: str, given: Any) -> Images | Features:
    possible = "give images uint8[N, H, W, C] with C 1 or 3, features float[N, d], or the name of a folder or file"
    if isinstance(given, bytes | Mapping) or given is None:
        raise InputError(f"{name}: found {type(given).__name__}; {possible}")
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as e:  # ragged lists; tensors on a GPU, or with gradients
        raise InputError(f"{name}: no array can be made of it ({str(e).splitlines()[0]}); {possible}") from None
    found = f"{array.dtype}{list(array.shape)}"
    if array.ndim == 2 and array.dtype.kind == "f":
        return checked_features(array, name)
    if array.ndim != 4:
        raise InputError(f"{name}: found {found}; {possible}")
    if array.dtype != np.uint8:
        raise InputError(f"{name}: found {found}; images are uint8 in 0..255 (of floats in 0..1: 255 times, rounded)")
    if array.shape[3] not in (1, 3) or 0 in array.shape[1:3]:
        also = "; the channels come last" if array.shape[1] in (1, 3) else ""
        raise InputError(f"{name}: found {found}; images have 1 or 3 channels, as [N, H, W, C]{also}")
    return ArrayImages(array)
