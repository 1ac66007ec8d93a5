"""Columns of categories in rows of numbers: 1 for a row's own value, 0 for each other of the column, and back to words.

What users get is a column of text, whose field holds all values, so that it can be read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ldsaug_ray.domains.sources.base import text_of
from ldsaug_ray.errors import InputError

Hot = NDArray[np.float32]
MOST = 1000  # values of a column: each is a number in every row
_NOTE = b"categories"


def one_hot(cells: Sequence[Any], values: Sequence[str], unknown: str) -> tuple[Hot, dict[int, str]]:
    """float32[N, K] of cells and K values, and row -> why it cannot be used; unknown: what to say of other values."""
    out, wrong = np.zeros((len(cells), len(values)), np.float32), {}
    places = {value: k for k, value in enumerate(values)}
    for row, cell in enumerate(cells):
        if lacks(cell):
            wrong[row] = "is empty"
        elif (place := places.get(text(cell))) is None:
            wrong[row] = f"{text(cell)[:30]!r} is {unknown}"
        else:
            out[row, place] = 1
    return out, wrong


def split(batch: Hot, categories: Mapping[str, Sequence[str]]) -> tuple[Hot, dict[str, Hot]]:
    """The columns of numbers, float32[N, D], and of each category its part, float32[N, K]."""
    start = batch.shape[1] - sum(map(len, categories.values()))
    numbers, parts = batch[:, :start], {}
    for name, values in categories.items():
        parts[name] = batch[:, start : start + len(values)]
        start += len(values)
    return numbers, parts


def words(hot: Hot, name: str, values: Sequence[str]) -> tuple[pa.Array, pa.Field]:
    """The value with the most of each row, as a column of text and its field."""
    field = pa.field(name, pa.string(), metadata={_NOTE: json.dumps(list(values))})
    return pa.array(values, pa.string()).take(pa.array(hot.argmax(1))), field


def read(column: pa.Array, field: pa.Field) -> Hot:
    """Of a column that `words` made. Raises InputError where the file was rewritten, and the values are lost."""
    if _NOTE not in (field.metadata or {}):
        raise InputError(f"the column {field.name} of rows lacks its note of all categories: its file was rewritten")
    values = json.loads(field.metadata[_NOTE])
    return np.eye(len(values), dtype=np.float32)[pc.index_in(column, pa.array(values, pa.string())).to_numpy()]


def lacks(cell: Any) -> bool:
    """Whether there is nothing in it: null, no text, NaN."""
    return bool(cell is None or cell == "" or cell != cell)  # NaN alone is not itself


def text(value: Any) -> str:
    """A cell's value as text."""
    return text_of(value) if isinstance(value, bytes) else str(value)


def by_size(value: Any) -> tuple[bool, float, str]:
    """The order of values: numbers by size, then text."""
    try:
        return False, float(value), ""
    except (TypeError, ValueError):
        return True, 0.0, text(value)
