"""Attribute files in CelebA's text layout: a count, a line of names, then `KEY v v v ...` with -1 or 1 a value.

Read by hand and not by pandas, so that an error names its line, and 200,000 rows of 40 take a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ldsaug_ray.common.pointers import pointer
from ldsaug_ray.common.storage import Location, Place
from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.sources.base import Attributes, check_names, composed
from ldsaug_ray.errors import InputError

_CODES = {"-1": 0, "0": 0, "1": 1}  # 0 and -1 both mean no


class AttributeTable:
    """Attributes by key. Pickles as its arrays.

    Attributes:
        names: the attributes, in the order of the columns.
        keys: one per row, as written in the file.
        values: int8[N, len(names)], 1 or -1.
        file: where they came from, for messages.
    """

    def __init__(self, names: Sequence[str], keys: Sequence[str], values: np.ndarray, file: str) -> None:
        self.names = tuple(names)
        self.keys = tuple(keys)
        self.values = values
        self.file = file

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, key: str) -> int | None:
        """The row of an image: by its exact key, else by its file name, else by the name without extension.

        Where none of these is there as it is written, accents written in another way match too (Unicode NFC: macOS
        takes them apart). A name that several rows share in such a form matches none of them.
        """
        row = self.exact_row(key)
        if row is None and not key.isascii():
            key = composed(key)
            for name in (key, key.rpartition("/")[2], _stem(key.rpartition("/")[2])):
                row = self._composed.get(name) if row is None else row
        return row

    def exact_row(self, key: str) -> int | None:
        """`row`, by names as they are written."""
        base = key.rsplit("/", 1)[-1]
        row = self._rows.get(key)
        if row is None:
            row = self._rows.get(base)
        if row is None:
            row = self._stems.get(base)  # a tar's key has no ending, and may have a dot
        if row is None:
            row = self._stems.get(_stem(base))
        return row

    def lookup(self, key: str) -> Attributes | None:
        """{name: 1 or -1} of an image, None where there is no row for it; see `row`."""
        row = self.row(key)
        return None if row is None else dict(zip(self.names, self.values[row].tolist(), strict=True))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def _stems(self) -> dict[str, int]:
        return _only([_stem(key.rpartition("/")[2]) for key in self.keys])

    @cached_property
    def _composed(self) -> dict[str, int]:
        """NFC of keys, and of their stems, with an accent."""
        keys = [composed(key) for key in self.keys]
        found = _only([_stem(key.rpartition("/")[2]) for key in keys]) | _only(keys)
        return {name: i for name, i in found.items() if not name.isascii()}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}


def require_attribute(
    name: str, known: Collection[str], unit: str = "images", setting: str = "evaluate.attributes"
) -> None:
    """An attribute that a setting names must be one of those that the data have.

    Raises:
        InputError: it is not.
    """
    if name not in known:
        raise InputError(f"{setting}: {name} is not known of these {unit}; known are: {', '.join(known) or 'none'}")


def load_attributes(data: CommonData) -> AttributeTable | None:
    """The attribute file that the settings name; None without attributes or with those of the source's own columns."""
    if data.attributes is None or data.attributes == "columns":
        return None
    return read_attribute_file(data.attributes, data.attribute_names)


def read_attribute_file(place: Place, names: Sequence[str] | None = None) -> AttributeTable:
    """Parse CelebA's `list_attr_celeba.txt` or CelebAMask-HQ's `CelebAMask-HQ-attribute-anno.txt`.

    Values may be -1/1 or 0/1; runs of blanks, CRLF, a byte-order mark and empty lines do no harm.

    Args:
        names: attributes to keep, in this order; none: all.

    Raises:
        InputError: names the file, the line, what stands there, and what should.
        StorageError: the file cannot be read, or is no UTF-8 text.
    """
    location = Location.of(place)
    where = location.uri
    if not location.exists():
        raise InputError(f"data.attributes = {where}: there is no such file")
    lines = location.read_text().split("\n")
    first = lines[0].strip()
    if (advice := pointer(first.encode())) is not None:
        raise InputError(f"{where}: {advice}")
    if not first.isdecimal():
        advice = "; this looks like CSV, give CelebA's .txt layout" if "," in first else ""
        raise InputError(f"{where}, line 1: should be the number of rows, found {first[:60]!r}{advice}")
    header = composed(lines[1]).split() if len(lines) > 1 else []
    if not header:
        raise InputError(f"{where}, line 2: should be the attributes' names, found nothing")
    if len(set(header)) < len(header):
        twice = [n for n, times in Counter(header).items() if times > 1]
        raise InputError(f"{where}, line 2: named more than once: {', '.join(twice)}")
    check_names(names, header, f"{where} has no attribute")
    keys, packed = _rows(lines, len(header), where)
    if len(keys) != int(first):
        raise InputError(f"{where}: line 1 says {first} rows, there are {len(keys)}; is the file cut short?")
    values = np.frombuffer(packed, np.int8).reshape(len(keys), len(header)) * np.int8(2) - np.int8(1)
    if names:
        values = np.ascontiguousarray(values[:, [header.index(n) for n in names]])
    return AttributeTable(names or header, keys, values, where)


def _rows(lines: Sequence[str], width: int, where: str) -> tuple[list[str], bytes]:
    """Keys, and one byte a value: 0 no, 1 yes."""
    seen: dict[str, int] = {}
    packed = bytearray()
    code = _CODES.__getitem__
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if not words:
            continue
        key = words[0]
        if len(words) != width + 1:
            raise InputError(f"{where}, line {number}: {len(words) - 1} values after {key!r}, but {width} names")
        try:
            packed += bytes(map(code, words[1:]))
        except KeyError as e:
            raise InputError(f"{where}, line {number}: {e.args[0]!r} is no attribute value; -1, 0 or 1 are") from None
        if key in seen:
            raise InputError(f"{where}, line {number}: {key!r} stands already on line {seen[key]}")
        seen[key] = number
    return list(seen), bytes(packed)


def _only(names: Sequence[str]) -> dict[str, int]:
    """Name -> its place, of those that stand once."""
    times = Counter(names)
    return {name: i for i, name in enumerate(names) if times[name] == 1}


def _stem(base: str) -> str:
    return base.rpartition(".")[0] or base
