"""What every source shares: the listing's schema and the reading protocol.

A source lists its items without reading one, then reads any part of that list in order. It pickles, so Ray workers
read their own part. A file that cannot be read is a reason beside the record, never an exception: one bad file must
not stop a job.
"""

from __future__ import annotations

import difflib
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, TypeVar

import pyarrow as pa

from ldsaug_ray.common.pointers import pointer
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.sources.walk import ending
from ldsaug_ray.errors import InputError, StorageError

T = TypeVar("T")
U = TypeVar("U")

LISTING = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),  # relative to the source; "" where the source is one file
        pa.field("index", pa.int64(), nullable=False),  # Parquet: row of the file; tar: offset of the data; else 0
        pa.field("length", pa.int64(), nullable=False),  # bytes; -1 where not known
    ]
)

Attributes = dict[str, int | None]  # 1 yes, -1 no; of those with many values one of 0, 1, …; None not known
LARGEST_LABEL = 9_999
# (payload: a file's bytes, or what else the domain reads; why there is none; attributes)
Reading = tuple[Any, str | None, Attributes | None]

_REMOTE_AHEAD = 16  # range requests under way at a time on an object store


class Source(ABC):
    """A set of items, such as image files, under one address.

    Attributes:
        uri: what the user wrote, for messages.
        attribute_names: attributes that `read` gives; empty unless data.attributes is "columns".
        categorical: those of them that have many values.
        passed_over: what -> how often it lies there and is not read; whole once `list` has returned.
        notes: sentences that the user should read before trusting the result; whole once `list` has returned.
    """

    uri: str
    attribute_names: tuple[str, ...] = ()
    categorical: frozenset[str] = frozenset()
    passed_over: Mapping[str, int] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    @abstractmethod
    def list(self) -> pa.Table:
        """Every item, as a table of schema `LISTING`, ordered by (file, index); nothing is decoded.

        Raises:
            InputError: a file of the source is unreadable as a whole.
        """

    def train_on(self, records: pa.Table) -> None:
        """Told once of the records to train on, before `read`: a source whose reading depends on them looks at them."""
        return

    @abstractmethod
    def read(self, records: pa.Table) -> Iterator[Reading]:
        """For each record, in order: (payload, None, attributes) or (None, reason, None).

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


def read_or_reason(location: Location) -> tuple[bytes | None, str | None]:
    """A file's bytes, or why they cannot be read."""
    try:
        return location.read_bytes(), None
    except StorageError as e:
        return None, unreadable(e).replace(f"cannot read {location.uri}: ", "")  # equal reasons are counted together


def unreadable(error: BaseException) -> str:
    """One line on why a record could not be read."""
    if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
        return "the file is gone"
    lines = str(error).splitlines()
    return f"cannot be read: {lines[0] if lines else type(error).__name__}"


def shard_keys(files: Sequence[str]) -> dict[str, str]:
    """What stands before each file's keys with data.shard_in_key: its path, without the ending where that is enough."""
    short = {file: file[: -len(ending(file)) - 1] if ending(file) else file for file in files}
    times = Counter(short.values())
    return {file: name if times[name] == 1 else file for file, name in short.items()}


def text_of(name: bytes) -> str:
    """A stored name as text; bytes that are not UTF-8 are written as `\\xe9`, since a key must be text."""
    return name.decode("utf-8", "backslashreplace")


def composed(text: str) -> str:
    """With accents as one character with their letter (Unicode NFC); macOS takes them apart."""
    return unicodedata.normalize("NFC", text)


def not_a(kind: str, begin: bytes, error: BaseException) -> str:
    """Why a file cannot be read as `kind`, by its first `POINTER_BYTES` and what its reader said."""
    return pointer(begin) or f"not a {kind} file ({str(error).splitlines()[0] if str(error) else 'damaged'})"


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


def label(value: Any) -> int | None:
    """A label's stored value as one of 0..`LARGEST_LABEL`; None for null, -1 and anything else."""
    return value if type(value) is int and 0 <= value <= LARGEST_LABEL else None


def attributes_from(values: Mapping[str, Any], categorical: Collection[str]) -> Attributes | None:
    """An image's stored attributes, each as `sign`, or of the categorical `label`, has it; None where none is known."""
    known = {name: (label if name in categorical else sign)(value) for name, value in values.items()}
    return known if any(value is not None for value in known.values()) else None


def check_names(names: Iterable[str] | None, known: Collection[str], lacking: str) -> None:
    """Raise InputError, with the nearest name, for one of data.attribute_names that is not known."""
    for name in names or ():
        if name not in known:
            raise InputError(f"data.attribute_names: {lacking} {name!r}; {did_you_mean(name, known)}")


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
