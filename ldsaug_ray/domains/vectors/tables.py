"""Tables of any layout as Arrow batches: Parquet, CSV with every cell as text, .npy and scikit-learn's tables.

A CSV's cells stay text until a row is read: one word among numbers then costs one row, and not the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.sources.base import not_a
from ldsaug_ray.errors import InputError

BUILT_IN = ("wine", "breast_cancer", "iris")  # of scikit-learn, with the label `target`
VECTOR = "vector"  # what the column of an .npy file is called
_ROWS = 4096


class Table:
    """One file. Pickles as its place; what it opens, it opens where it is read."""

    def __init__(self, place: Location | str, kind: str) -> None:
        """`place`: of the file, or the name of a built-in table (kind `sklearn`)."""
        self.place, self.kind = place, kind
        self.ragged: list[tuple[int, int]] = []  # of CSV, after `batches`: line and cells of rows unlike the header

    @property
    def uri(self) -> str:
        """For messages."""
        return f"sklearn:{self.place}" if isinstance(self.place, str) else self.place.uri

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns and their types. Raises InputError where the file cannot be read as what it is."""
        with self._read():
            if self.kind == "parquet":
                return self._parquet().schema_arrow
            first = next(self._from_start(), None)
            return pa.schema([]) if first is None else first.schema

    def batches(self, start: int = 0, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Rows from number `start` on, of some columns, a few thousand at a time. Raises as `schema`."""
        with self._read():
            yield from self._batches(start, columns)

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, ValueError, EOFError, OSError) as e:
            raise InputError(f"{self.uri}: {not_a(f'readable {self.kind}', b'', e)}") from None

    def _batches(self, start: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        if self.kind != "parquet":
            yield from _from(start, self._from_start(), columns)
            return
        file = self._parquet()
        groups: list[int] = []
        before = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if before + rows > start or groups:
                groups.append(group)
            else:
                before += rows
        if groups:
            yield from _from(start - before, file.iter_batches(_ROWS, row_groups=groups, columns=columns), columns)

    def _parquet(self) -> pq.ParquetFile:
        assert isinstance(self.place, Location)
        return pq.ParquetFile(self.place.fs.open_input_file(self.place.path))

    def _from_start(self) -> Iterator[pa.RecordBatch]:
        if isinstance(self.place, str):
            yield from _built_in(self.place).to_batches(_ROWS)
        elif self.kind == "npy":
            array = self._array()
            for first in range(0, len(array), _ROWS):
                some = np.asarray(array[first : first + _ROWS])
                some = some.astype(np.float64) if some.dtype != np.float32 else some
                yield pa.RecordBatch.from_arrays([vectors(some)], [VECTOR])
        else:
            with self.place.fs.open_input_stream(self.place.path) as stream:
                self.ragged.clear()
                yield from _csv(stream, self.ragged)

    def _array(self) -> np.ndarray[Any, Any]:
        assert isinstance(self.place, Location)
        if self.place.is_local:
            array = np.load(self.place.path, mmap_mode="r", allow_pickle=False)
        else:
            array = np.load(io.BytesIO(self.place.read_bytes()), allow_pickle=False)
        if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
            raise InputError(f"{self.uri}: {array.dtype}{list(array.shape)}; numbers [rows, values] are needed")
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "kind": self.kind, "ragged": []}


def _from(start: int, batches: Iterator[pa.RecordBatch], columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        yield batch.slice(start) if columns is None else batch.select(columns).slice(start)
        start = 0


def _csv(stream: Any, ragged: list[tuple[int, int]]) -> Iterator[pa.RecordBatch]:
    """All cells as text; the separator is judged by the first line. Rows with more or fewer cells go to `ragged`."""
    head = stream.read(1 << 16)
    first = head.split(b"\n", 1)[0] if head.strip() else b""
    if not first:
        return

    def skip(row: Any) -> str:
        ragged.append((row.number, row.actual_columns))  # without threads rows are numbered
        return "skip"

    separator = max(",;\t", key=first.decode("utf-8", "replace").count)
    how = pacsv.ParseOptions(delimiter=separator, invalid_row_handler=skip)
    names = pacsv.read_csv(io.BytesIO(first + b"\n"), parse_options=how).schema.names
    found, no_numbers = numbers(pa.array(names))
    if not no_numbers and found.tolist() != [*range(len(names))]:
        raise ValueError("its first line holds numbers, where the columns' names belong: put a line of names before it")
    text = dict.fromkeys(names, pa.string())
    as_text = pacsv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
    blocks = pacsv.ReadOptions(use_threads=False, block_size=1 << 20)
    with pacsv.open_csv(pa.PythonFile(_Joined(head, stream), mode="r"), blocks, how, as_text) as reader:
        yield from reader


class _Joined(io.RawIOBase):
    """What was read of a stream already, and the rest of it."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As of any stream."""
        if self._head:
            size = len(self._head) if size < 0 else size
            some, self._head = self._head[:size], self._head[size:]
            return some
        return bytes(self._stream.read(None if size < 0 else size))


def _built_in(name: str) -> pa.Table:
    from sklearn import datasets

    if name not in BUILT_IN:
        raise InputError(f"data.source = sklearn:{name}: built in are sklearn:{', sklearn:'.join(BUILT_IN)}")
    bunch = getattr(datasets, f"load_{name}")()
    labels = [str(bunch.target_names[k]) for k in bunch.target]
    names = [str(n) for n in bunch.feature_names]
    return pa.table({**{n: bunch.data[:, k] for k, n in enumerate(names)}, "target": labels})


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds vectors."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(listed and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers, or truth values."""
    checks = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def numbers(column: pa.Array) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
    """float64[N], and row -> why there is no number; of text each cell is read by itself where not all are numbers."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column = pc.cast(pc.utf8_trim_whitespace(column), pa.float64())
        except pa.ArrowInvalid:
            return _cells(column.to_pylist())
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    empty = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist()
    return values, dict.fromkeys(empty, "is empty")


def _cells(cells: list[str | None]) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
    values, wrong = np.full(len(cells), np.nan), {}
    for row, cell in enumerate(cells):
        try:
            values[row] = float(cell) if cell is not None else np.nan
        except ValueError:
            wrong[row] = f"is no number: {cell[:30]!r}" if cell and cell.strip() else "is empty"
        if cell is None:
            wrong[row] = "is empty"
    return values, wrong
