"""What a tar holds, from its headers alone: names, places and lengths; plain, or compressed by gzip, bzip2, xz or zstd.

A plain tar is read by range. A compressed one can only be read from its start, so whoever reads it should go forwards.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from ldsaug_ray.common.pointers import POINTER_BYTES
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.sources.base import not_a, text_of, unreadable
from ldsaug_ray.domains.sources.walk import left_out_of_path
from ldsaug_ray.errors import InputError, StorageError

SYMBOLIC = "symbolic links in tars (`tar --dereference` stores what they lead to)"
SPARSE = "sparse members of tars (write them with `tar` and not `tar --sparse`)"
DANGLING = "hard links in tars to members that do not stand before them"
ODD = "members of tars that are no files"

_BUFFER = 1 << 18  # headers of small images come many at a time
_AHEAD = 1 << 22  # of a compressed file, since an object store answers late
_PIECE = 1 << 14  # read from a decompressor at a time
_KEPT_BYTES = 1 << 20  # of one member that is kept while a compressed tar streams by
_OTHERS = {
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\x1f\x9d": "compressed by compress (.Z)",
    b"\x5d\0\0": "compressed by lzma",
    b"LZIP": "compressed by lzip",
    b"PK\3\4": "a zip file",
    b"7z\xbc\xaf": "a 7z file",
    b"Rar!": "a rar file",
}
DAMAGE: tuple[type[Exception], ...] = (  # of a tar or its compression; a decompressor's OSError has no number
    tarfile.TarError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
)
_DAMAGE_OR_OS: tuple[type[Exception], ...] = (*DAMAGE, OSError)


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    key: str  # the path up to its name's first dot (after its last blank)
    extension: str  # all after that dot
    offset: int  # of the data, bytes; in a compressed tar of what it decompresses to
    length: int

    @property
    def name(self) -> str:
        """The path, as `key` and `extension` make it."""
        return f"{self.key}.{self.extension}" if self.extension else self.key

    @property
    def stem(self) -> str:
        """The path without what stands after its name's last dot."""
        return self.name[: -len(self.extension.rpartition(".")[2]) - 1] if self.extension else self.key


@dataclass(frozen=True)
class Contents:
    """One tar's members, in their order."""

    members: tuple[Member, ...]
    size: int  # of the archive, decompressed, bytes
    broken_at: int | None  # where the headers stop making sense; None: the archive is sound to its end
    left_out: Counter[str]
    kept: dict[int, bytes]  # offset -> bytes of the small members that were asked for


def is_compressed(place: Location) -> bool:
    """Whether it is, by its first bytes: names are often wrong."""
    try:
        with place.fs.open_input_file(place.path) as raw:
            return _decompressor(raw.read(6)) is not None
    except OSError as e:
        raise StorageError(f"{place.uri}: {unreadable(e)}") from e


def open_tar(place: Location) -> tuple[Any, int | None]:
    """The tar's bytes, decompressed, to read and seek in, and how many there are; None: compressed, not known."""
    raw = place.fs.open_input_file(place.path)
    opener = _decompressor(raw.read(6))
    if opener is not None:
        raw.close()
        return io.BufferedReader(_Forwards(place, opener), _BUFFER), None
    raw.seek(0)
    return raw, raw.size()


def scan_tar(place: Location, keep: Callable[[str], bool]) -> Contents:
    """The members of one tar.

    A hard link stands for the member that it names. A name that is not UTF-8 is written with backslashes.

    Args:
        keep: says of an extension whether a compressed tar's small members that have it are to be kept.

    Raises:
        InputError: it is no tar.
        StorageError: it cannot be opened.
    """
    try:
        handle, size = open_tar(place)
        with handle:
            plain = handle if size is None or isinstance(place.fs, pafs.LocalFileSystem) else _buffered(handle)
            return _scan(plain, size, place, keep)
    except OSError as e:
        raise StorageError(f"{place.uri}: {unreadable(e)}") from e


def _scan(handle: Any, size: int | None, place: Location, keep: Callable[[str], bool]) -> Contents:
    try:
        tar = tarfile.open(fileobj=handle, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except _DAMAGE_OR_OS as e:
        if isinstance(e, OSError) and (size is not None or e.errno is not None):  # else a decompressor's
            raise
        with place.fs.open_input_file(place.path) as raw:
            raise InputError(f"{place.uri}: {_no_tar(raw.read(POINTER_BYTES), e)}") from e
    members: list[Member] = []
    places: dict[str, tuple[int, int]] = {}
    left_out: Counter[str] = Counter()
    apart: set[tuple[str, str]] = set()
    kept: dict[int, bytes] = {}
    broken_at = None
    try:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            name = _clean(info.name)
            where = places.get(_clean(info.linkname).lstrip("/")) if info.islnk() else (info.offset_data, info.size)
            if info.isreg() and not info.issparse():
                places[name.lstrip("/")] = (info.offset_data, info.size)
            elif info.islnk() and where is not None:
                places[name.lstrip("/")] = where
            elif not info.isdir():
                left_out[_left_out_as(info)] += 1
                continue
            else:
                continue
            if (why := left_out_of_path(name)) is not None:
                apart.add(why)
                continue
            folder, slash, base = name.rpartition("/")
            stem, rest = _split(base)
            assert where is not None
            members.append(Member(folder + slash + stem, rest, *where))
            if size is None and where[1] <= _KEPT_BYTES and keep(rest) and not info.islnk():
                handle.seek(where[0])
                kept[where[0]] = handle.read(where[1])
        # tarfile takes a damaged header for the end of the archive, and ends where one tar was appended to another.
        broken_at = _next_data(handle, tar.offset)
    except DAMAGE:
        broken_at = tar.offset
    except OSError as e:
        if size is not None or e.errno is not None:  # as above
            raise
        broken_at = tar.offset
    if size is None:
        size = tar.offset if broken_at is None else _readable_bytes(place)
    if broken_at is not None:  # a member that is cut short is itself where it breaks
        cut = members and members[-1].offset + members[-1].length > size
        broken_at = members[-1].offset if cut else min(broken_at, size)
    left_out.update(why for why, _ in apart)
    return Contents(tuple(members), size, broken_at, left_out, kept)


def _no_tar(begin: bytes, error: BaseException) -> str:
    for mark, what in _OTHERS.items():
        if begin.startswith(mark):
            return f"{what}, which is not read; write a tar, plain or compressed by gzip, bzip2, xz or zstd"
    if _decompressor(begin) is not None:
        if "too much memory" in str(error):
            return "a zstd file whose window is larger than is read; compress it again without --long"
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            return "truncated: nothing in what is left of the compressed file is whole"
    return not_a("tar", begin, error)


def _clean(name: str) -> str:
    return text_of(name.encode("utf-8", "surrogateescape")).removeprefix("./")


def _split(base: str) -> tuple[str, str]:
    """A name's key and extension; no extension has a blank: `Mr. Bean.jpg` is the image of `Mr. Bean`."""
    dot = base.find(".", max(base.rfind(blank) for blank in " \t\n") + 1)
    return (base, "") if dot < 0 else (base[:dot], base[dot + 1 :])


def _left_out_as(info: tarfile.TarInfo) -> str:
    if info.issym():
        return SYMBOLIC
    if info.islnk():
        return DANGLING
    return SPARSE if info.issparse() else ODD


def _next_data(handle: Any, position: int) -> int | None:
    """Where something other than zeros stands within 64 KiB after the last member: there should be nothing."""
    handle.seek(position)
    rest = handle.read(1 << 16)
    skipped = len(rest) - len(rest.lstrip(b"\0"))
    return None if skipped == len(rest) else position + skipped // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE


def _readable_bytes(place: Location) -> int:
    """How many bytes of a damaged compressed tar can be had."""
    with open_tar(place)[0] as handle:
        raw = handle.raw  # a `_Forwards`
        with contextlib.suppress(*DAMAGE, OSError):
            raw.seek(sys.maxsize)
        return raw.tell()


def _buffered(handle: pa.NativeFile) -> io.BufferedReader:
    return io.BufferedReader(handle, _BUFFER)  # it has all that a raw file needs


def _decompressor(begin: bytes) -> Callable[[pa.NativeFile], Any] | None:
    """What decompresses a file that begins so; its `read1` gives what there is."""
    if begin.startswith(b"\x1f\x8b"):
        return lambda raw: gzip.GzipFile(fileobj=raw)
    if begin.startswith(b"BZh"):
        return bz2.BZ2File
    if begin.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile
    if begin.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", begin):  # the latter: skippable
        return lambda raw: pa.CompressedInputStream(raw, "zstd")
    return None


class _Forwards(io.RawIOBase):
    """A compressed file's bytes. Seeking goes forwards; backwards it begins anew.

    The decompressors' own seeking and long reads lose what stands before the place where a file is cut short.
    """

    def __init__(self, place: Location, opener: Callable[[pa.NativeFile], Any]) -> None:
        self._place, self._opener = place, opener
        self._begin()

    def _begin(self) -> None:
        raw = self._place.fs.open_input_stream(self._place.path, compression=None, buffer_size=_AHEAD)
        self._stream = self._opener(raw)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._piece(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _piece(self, most: int) -> bytes:
        """The next bytes, never across a multiple of `_PIECE`: Arrow loses the piece in which a file is cut short."""
        data = self._stream.read1(min(most, _PIECE - self._at % _PIECE))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        if offset < self._at:
            self._begin()
        while self._at < offset and self._piece(offset - self._at):
            pass
        return self._at
