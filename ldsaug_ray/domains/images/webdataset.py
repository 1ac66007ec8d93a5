"""Images in WebDataset tars: a sample is the run of members that share a key, the path up to its name's first dot.

Listing reads the tar headers alone; reading fetches each image by (offset, length). Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Data
from ldsaug_ray.domains.images.base import (
    IMAGE_EXTENSIONS,
    Attributes,
    Reading,
    Source,
    ahead,
    did_you_mean,
    extension,
    listing,
    locate,
    sign,
    unreadable,
)
from ldsaug_ray.errors import InputError, StorageError

_SAMPLES_LOOKED_AT = 64  # JSON members of the first tar from which the attributes' names are judged
_REMOTE_BUFFER = 1 << 18  # headers of small images come many at a time


@dataclass(frozen=True)
class _Member:
    key: str
    extension: str  # all after the name's first dot
    offset: int  # of the data, bytes
    length: int


@dataclass(frozen=True)
class _Contents:
    members: tuple[_Member, ...]
    size: int  # of the archive, bytes
    broken_at: int | None  # where the headers stop making sense; None: the archive is sound to its end


class WebDatasetSource(Source):
    """Images in uncompressed tar files; attributes from the `.json` member with the image's key."""

    def __init__(self, root: Location, files: Sequence[str], data: Data) -> None:
        """`files`: relative to `root`, sorted; "" where root is the one tar.

        Raises:
            InputError: with data.attributes=columns, when the first tar has no such attributes.
        """
        self.uri = root.uri
        self.root = root
        self.files = tuple(files)
        if data.attributes == "columns":
            self.attribute_names = self._find_attributes(data.attribute_names)

    def list(self) -> pa.Table:
        """See `Source.list`; index is the offset of the image's bytes in its tar.

        A tar cut short or damaged keeps what is readable; where it breaks stands a record that cannot be read.
        """
        rows: list[tuple[str, str, int, int]] = []
        for file in self.files:
            contents = self._scan(file)
            images = _images(contents.members)
            broken = contents.broken_at is not None or any(m.offset + m.length > contents.size for m in images)
            if broken and not any(m.offset + m.length <= contents.size for m in images):
                raise InputError(
                    f"{self._where(file)}: the tar is truncated or damaged and no image in it is whole; "
                    "write it again or remove it"
                )
            rows += [(m.key, file, m.offset, m.length) for m in images]
            if contents.broken_at is not None:
                name = locate(self.root, file).name
                rows.append((f"{name}#{contents.broken_at}", file, contents.broken_at, -1))
        if not rows:
            raise InputError(f"{self.uri}: no tar member has an image's extension ({', '.join(IMAGE_EXTENSIONS)})")
        keys, files, index, length = zip(*sorted(rows, key=lambda r: (r[1], r[2])), strict=True)
        return listing(keys, files, index, length)

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`."""
        columns = (records[name].to_pylist() for name in ("key", "file", "index", "length"))
        yield from ahead(self._read_one, zip(*columns, strict=True), remote=not self.root.is_local)

    def _read_one(self, record: tuple[str, str, int, int]) -> Reading:
        key, file, offset, length = record
        if length < 0:
            return None, f"damaged tar: no header at byte {offset}, the members after it are lost", None
        try:
            payload = self._bytes(file, offset, length)
            if len(payload) < length:
                return None, f"truncated tar: {len(payload)} of the image's {length} bytes are there", None
            return payload, None, self._attributes(file, key)
        except (OSError, StorageError) as e:
            return None, unreadable(e), None

    def _attributes(self, file: str, key: str) -> Attributes | None:
        if not self.attribute_names:
            return None
        values = self._json(file, key)
        known = {name: sign(values.get(name)) for name in self.attribute_names}
        return known if any(v is not None for v in known.values()) else None

    def _json(self, file: str, key: str) -> dict[str, object]:
        """The sample's JSON object; empty where there is none."""
        cache: dict[str, dict[str, _Member]] = self.__dict__.setdefault("_json_members", {})
        if file not in cache:
            cache[file] = {m.key: m for m in self._scan(file).members if m.extension.lower() == "json"}
        member = cache[file].get(key)
        if member is None:
            return {}
        try:
            value = json.loads(self._bytes(file, member.offset, member.length))
        except ValueError:  # bad JSON or bad UTF-8: the image counts as one without attributes
            return {}
        return value if isinstance(value, dict) else {}

    def _find_attributes(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """data.attribute_names, or the JSON keys whose value is bool, -1, 0, 1 or null in all samples looked at."""
        keys = [m.key for m in self._scan(self.files[0]).members if m.extension.lower() == "json"][:_SAMPLES_LOOKED_AT]
        binary: dict[str, bool] = {}
        for key in keys:
            for name, value in self._json(self.files[0], key).items():
                binary[name] = binary.get(name, True) and (value is None or sign(value) is not None)
        where = self._where(self.files[0])
        for name in names or ():
            if name not in binary:
                raise InputError(
                    f"data.attribute_names: no .json member of {where} has {name!r}; {did_you_mean(name, binary)}"
                )
            if not binary[name]:
                raise InputError(f"data.attribute_names: {name!r} in {where} has values that are not -1, 0, 1 or bool")
        found = names or tuple(name for name, is_binary in binary.items() if is_binary)
        if not found:
            raise InputError(
                f"data.attributes = columns: {where} has no .json members with values of -1, 0, 1, true or false; "
                "set data.attributes to a file in CelebA's layout, or to null"
            )
        return found

    def _where(self, file: str) -> str:
        return locate(self.root, file).uri

    def _open(self, file: str) -> pa.NativeFile:
        """A file of the source, kept open: the next record is most likely in the same one."""
        kept: dict[str, pa.NativeFile] = self.__dict__.setdefault("_handles", {})
        handle = kept.get(file)
        if handle is None:
            place = locate(self.root, file)
            handle = place.fs.open_input_file(place.path)
            if len(kept) >= 2:  # no close: another thread may still read from it
                kept.pop(next(iter(kept)), None)
            kept[file] = handle
        return handle

    def _bytes(self, file: str, offset: int, length: int) -> bytes:
        """Fewer bytes than `length` where the file ends before."""
        handle = self._open(file)
        available = max(0, min(length, handle.size() - offset))  # a damaged header may claim terabytes
        return handle.read_at(available, offset) if available else b""

    def _scan(self, file: str) -> _Contents:
        """The members of one tar, from its headers.

        Raises:
            InputError: it is no uncompressed tar.
            StorageError: it cannot be opened.
        """
        place = locate(self.root, file)
        try:
            with place.fs.open_input_file(place.path) as handle:
                buffered = handle if isinstance(place.fs, pafs.LocalFileSystem) else _buffered(handle)
                return _scan(buffered, handle.size(), place.uri)
        except OSError as e:
            raise StorageError(f"{place.uri}: {unreadable(e)}") from e


def _buffered(handle: pa.NativeFile) -> io.BufferedReader:
    return io.BufferedReader(handle, _REMOTE_BUFFER)  # it has all that a raw file needs


def _scan(handle: io.BufferedReader | pa.NativeFile, size: int, where: str) -> _Contents:
    if handle.read(2) == b"\x1f\x8b":
        raise InputError(f"{where}: a compressed tar cannot be read by range; decompress it (gunzip)")
    handle.seek(0)
    members: list[_Member] = []
    try:
        tar = tarfile.open(fileobj=handle, mode="r:")  # noqa: SIM115  # it only borrows the handle
    except tarfile.TarError as e:
        raise InputError(f"{where}: not a tar file ({e})") from e
    broken_at = None
    try:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            name = info.name.removeprefix("./")
            folder, slash, base = name.rpartition("/")
            if info.isreg() and not info.issparse() and not base.startswith("."):
                stem, _, rest = base.partition(".")
                members.append(_Member(folder + slash + stem, rest, info.offset_data, info.size))
    except (tarfile.TarError, EOFError, ValueError):
        broken_at = min(tar.offset, size)
    else:
        # tarfile takes a damaged header for the end of the archive, and ends where one tar was appended to another.
        broken_at = _next_data(handle, tar.offset)
    if members and members[-1].offset + members[-1].length > size and broken_at is not None:
        broken_at = None  # the member that is cut short is itself the record that cannot be read
        if members[-1].extension.rpartition(".")[2].lower() not in IMAGE_EXTENSIONS:
            broken_at = members[-1].offset
    return _Contents(tuple(members), size, broken_at)


def _next_data(handle: io.BufferedReader | pa.NativeFile, position: int) -> int | None:
    """Where something other than zeros stands within 64 KiB after the last member: there should be nothing."""
    handle.seek(position)
    rest = handle.read(1 << 16)
    skipped = len(rest) - len(rest.lstrip(b"\0"))
    return None if skipped == len(rest) else position + skipped // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE


def _images(members: Sequence[_Member]) -> list[_Member]:
    """The image members: `KEY.jpg`; where a sample has none so named, its first `KEY.something.jpg`."""
    plain = [m for m in members if m.extension.lower() in IMAGE_EXTENSIONS]
    have = {m.key for m in plain}
    others: dict[str, _Member] = {}
    for m in members:
        if m.key not in have and extension(f"x.{m.extension}") in IMAGE_EXTENSIONS:
            others.setdefault(m.key, m)
    return sorted([*plain, *others.values()], key=lambda m: m.offset)
