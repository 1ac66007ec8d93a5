"""What every image source shares: the listing's schema, the reading protocol, and walking a folder.

A source lists its images without decoding one, then reads any part of that list in order. It pickles, so Ray workers
read their own part. A file that cannot be read is a reason beside the record, never an exception: one bad file must
not stop a job.
"""

from __future__ import annotations

import difflib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError, StorageError

T = TypeVar("T")
U = TypeVar("U")

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")

LISTING = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),  # relative to the source; "" where the source is one file
        pa.field("index", pa.int64(), nullable=False),  # Parquet: row of the file; tar: offset of the data; else 0
        pa.field("length", pa.int64(), nullable=False),  # bytes; -1 where not known
    ]
)

Attributes = dict[str, int | None]  # 1 yes, -1 no, None not known
Reading = tuple[bytes | None, str | None, Attributes | None]  # (payload, why there is none, attributes)

_REMOTE_AHEAD = 16  # range requests under way at a time on an object store


class Source(ABC):
    """A set of images under one address.

    Attributes:
        uri: what the user wrote, for messages.
        attribute_names: attributes that `read` gives; empty unless data.attributes is "columns".
        passed_over: extension -> number of files that lie there and are not of the source's kind.
    """

    uri: str
    attribute_names: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def list(self) -> pa.Table:
        """Every image, as a table of schema `LISTING`, ordered by (file, index); nothing is decoded.

        Raises:
            InputError: a file of the source is unreadable as a whole.
        """

    @abstractmethod
    def read(self, records: pa.Table) -> Iterator[Reading]:
        """For each record, in order: (encoded bytes, None, attributes) or (None, reason, None).

        Args:
            records: rows of `list()`, in any order; consecutive ones read fastest. Further columns are ignored.
        """

    def __getstate__(self) -> dict[str, Any]:
        """State without what was cached (names that begin with an underscore): workers make their own."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"


def listing(
    keys: Sequence[str] | pa.Array,
    files: Sequence[str] | pa.Array,
    index: Sequence[int] | pa.Array,
    length: Sequence[int] | pa.Array,
) -> pa.Table:
    """The four columns as a table of schema `LISTING`."""
    columns = (keys, files, index, length)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, LISTING, strict=True)], schema=LISTING)


def locate(root: Location, file: str) -> Location:
    """The place of a listing's `file` under a source's root."""
    return root / file if file else root


def walk(folder: Location) -> list[tuple[str, int]]:
    """(relative path, bytes) of everything below a folder that is no folder, sorted by path; -1 bytes: not known.

    Names that begin with a dot are left out at every level: editors, macOS and synchronisers leave them, and
    `._0001.jpg` is no image. A link that leads nowhere is listed, so that it is reported and not lost.
    """
    skip = len(folder.path.rstrip("/")) + 1
    try:
        infos = folder.fs.get_file_info(pafs.FileSelector(folder.path, recursive=True))
        found = [(i.path[skip:], -1 if i.size is None else i.size) for i in infos if i.type != pafs.FileType.Directory]
    except OSError as e:
        raise StorageError(f"cannot list {folder.uri}: {str(e).splitlines()[0]}") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{folder.uri}: {_misnamed(folder.path)}; keys are text, so rename or remove it") from e
    if isinstance(folder.fs, pafs.LocalFileSystem):
        found += [(name, -1) for name in _dead_links(folder.path)]
    return sorted((name, size) for name, size in found if not name.startswith(".") and "/." not in name)


def _dead_links(folder: str) -> Iterator[str]:
    """Links to nowhere, which pyarrow passes over in silence."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.islink(path) and not os.path.exists(path):
                yield os.path.relpath(path, folder)


def _misnamed(folder: str) -> str:
    for parent, folders, names in os.walk(os.fsencode(folder)):
        for name in (*folders, *names):
            try:
                name.decode()
            except UnicodeDecodeError:
                return f"the name of {os.path.join(parent, name)!r} is not UTF-8"
    return "a name is not UTF-8"


def extension(name: str) -> str:
    """The lower-case extension of a path without its dot, "" where there is none."""
    _, dot, ending = name.rsplit("/", 1)[-1].rpartition(".")
    return ending.lower() if dot else ""


def read_or_reason(location: Location) -> tuple[bytes | None, str | None]:
    """A file's bytes, or why they cannot be read."""
    try:
        return location.read_bytes(), None
    except StorageError as e:
        return None, unreadable(e)


def unreadable(error: BaseException) -> str:
    """One line on why a record could not be read."""
    if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
        return "the file is gone"
    lines = str(error).splitlines()
    return f"cannot be read: {lines[0] if lines else type(error).__name__}"


def ahead(function: Callable[[T], U], items: Iterable[T], *, remote: bool) -> Iterator[U]:
    """`map(function, items)`; for a remote source a few calls ahead, since an object store answers late."""
    if not remote:
        yield from map(function, items)
        return
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(_REMOTE_AHEAD) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * _REMOTE_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def sign(value: Any) -> int | None:
    """An attribute's stored value as 1 or -1: 0 and False mean -1; None for null and for anything else."""
    if isinstance(value, int) and -1 <= value <= 1:  # bool is an int
        return 1 if value > 0 else -1
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to say after "there is no NAME": the nearest name, or the names there are."""
    names = list(dict.fromkeys(known))
    folded = {n.lower(): n for n in reversed(names)}
    close = difflib.get_close_matches(name.lower(), list(folded), 1, 0.6)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    if not names:
        return "there are none"
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"there are: {', '.join(names[:40])}{more}"
