"""Rows of tables as a source: which columns are values, keys and labels, judged before a row is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.sources.base import (
    LARGEST_LABEL,
    LISTING,
    Reading,
    Source,
    did_you_mean,
    listing,
    locate,
)
from ldsaug_ray.domains.sources.opening import find_files
from ldsaug_ray.domains.sources.walk import Files, ending, endings
from ldsaug_ray.domains.vectors.categories import MOST, by_size, lacks, one_hot, text
from ldsaug_ray.domains.vectors.settings import VectorsData
from ldsaug_ray.domains.vectors.tables import Table, is_list, is_number, numbers
from ldsaug_ray.errors import InputError

ROWS = Files("row", "rows", ("csv", "tsv", "npy"), "columns")
_KINDS = {"csv": "csv", "tsv": "csv", "npy": "npy", "parquet": "parquet", "parq": "parquet", "pq": "parquet"}
_JUDGED = 1000  # rows by which a column of text counts as one of numbers: where more than half are


def open_rows(data: VectorsData) -> RowSource:
    """The tables at data.source.

    Raises:
        InputError: nothing is there, files are of several kinds, or a column that the settings name does not fit.
        StorageError: it cannot be looked at.
    """
    if data.source.startswith("sklearn:"):
        return RowSource(None, {"": Table(data.source.removeprefix("sklearn:"), "sklearn")}, data)
    root, found, left_out = find_files(data.source, ROWS)
    one_file = [f.name for f in found] == [""]
    names = {f.name: _KINDS.get(ending(f.name or root.path)) for f in found}
    kinds = Counter(kind for kind in names.values() if kind is not None)
    wanted = data.format if data.format != "auto" else next(iter(kinds), None)
    if data.format == "auto" and len(kinds) > 1:
        raise InputError(f"data.source = {data.source} holds {', '.join(kinds)} files: set data.format to one of them")
    files = [name for name, kind in names.items() if kind == wanted or one_file]
    if wanted is None or not files:
        listed = ", ".join(f"{e} ×{n}" for e, n in endings(f.name or root.path for f in found).most_common(8))
        raise InputError(f"data.source = {data.source}: no Parquet, CSV or .npy file there ({listed or 'it is empty'})")
    others = endings(name for name, kind in names.items() if kind != wanted and not one_file)
    source = RowSource(root, {name: Table(locate(root, name), wanted) for name in files}, data)
    source.passed_over = dict([*others.most_common(), *left_out.most_common()])
    return source


class RowSource(Source):
    """Rows of tables of the same columns. The key is data.key_column, else `FILE#ROW`.

    Attributes:
        columns: those with the values, without categories.
        listed: whether that is one column of lists.
        categories: column -> its values: a row has 1 for its own and 0 for the others, after the columns' values.
            Once `list` has returned those of all rows; after `train_on`, of the usable training rows.
        labels: of each attribute its values in the order of their codes; whole once `list` has returned.
    """

    def __init__(self, root: Location | None, tables: dict[str, Table], data: VectorsData) -> None:
        """Raises InputError: a column that the settings name is missing or does not fit, or none is left."""
        self.uri = data.source if root is None else root.uri
        self.tables, self.key_column = tables, data.key_column
        self.attribute_names = tuple(data.attribute_names or ()) if data.attributes == "columns" else ()
        self.categorical = frozenset(self.attribute_names)
        given = data.categories
        self.learns = not isinstance(given, dict)
        self.unknown = "in no training row" if self.learns else "none of data.categories"
        self.categories = {name: list(given[name]) if isinstance(given, dict) else [] for name in given}
        self.keeps_unlabelled = data.missing_attributes == "keep" or not self.attribute_names
        if data.attributes == "columns" and not self.attribute_names:
            raise InputError("data.attributes = columns: name the columns with labels in data.attribute_names")
        first = next(iter(tables.values()))
        names = _names(first)
        asked = {"data.key_column": [data.key_column] if data.key_column else [], "data.columns": data.columns or ()}
        asked |= {"data.categories": [*self.categories], "data.attribute_names": [*self.attribute_names]}
        for setting, wanted in asked.items():
            for name in wanted:
                if name not in names:
                    raise InputError(f"{setting}: {first.uri} has no column {name!r}; {did_you_mean(name, names)}")
        if both := self.categories.keys() & set(data.columns or ()):
            raise InputError(f"data.categories: {min(both)} stands in data.columns too; leave it out of one of them")
        self.columns = tuple(data.columns or self._judged(first))
        self.listed = len(self.columns) == 1 and is_list(first.schema.field(self.columns[0]).type)
        self.width = self._width(first) if self.listed else len(self.columns)
        if self.listed and self.categories:
            raise InputError(
                f"data.categories go with columns of numbers; {self.columns[0]} of {first.uri} holds lists"
            )
        self.labels: dict[str, list[str]] = {}

    def _judged(self, first: Table) -> list[str]:
        if not first.schema.names:
            raise InputError(f"{first.uri}: holds no rows")
        apart = {self.key_column, *self.attribute_names, *self.categories}
        fields = [field for field in first.schema if field.name not in apart]
        if lists := [f.name for f in fields if is_list(f.type)]:
            if len(lists) > 1:
                raise InputError(f"{first.uri}: columns {', '.join(lists)} hold lists; name one in data.columns")
            return lists
        words = [f.name for f in fields if pa.types.is_string(f.type)]
        head = next(first.batches(columns=words), None) if words else None
        numeric = set()
        for name in words if head is not None else ():
            assert head is not None
            values, _ = numbers(head.slice(0, _JUDGED)[name])
            if np.isfinite(values).mean() > 0.5:
                numeric.add(name)
        found = [f.name for f in fields if is_number(f.type) or f.name in numeric]
        if not found and not self.categories:
            raise InputError(
                f"{first.uri}: no column of numbers, or of lists of them; its columns: {', '.join(first.schema.names)}"
            )
        if left := [field.name for field in fields if field.name not in found]:
            more = f" and {len(left) - 10} more" if len(left) > 10 else ""
            self.notes = (f"not read, since they are no numbers: {', '.join(left[:10])}{more} (see data.categories)",)
        return found

    def _width(self, first: Table) -> int:
        """How long most of the first lists are."""
        head = next(first.batches(columns=list(self.columns)))
        lengths = Counter(pc.list_value_length(head[self.columns[0]]).drop_null().to_pylist())
        return int(lengths.most_common(1)[0][0]) if lengths else 0

    def list(self) -> pa.Table:
        """See `Source.list`; a row without a key of its own gets `FILE#ROW`."""
        parts = [LISTING.empty_table()]
        learnt = [*self.attribute_names, *(self.categories if self.learns else ())]
        found: dict[str, set[Any]] = {name: set() for name in learnt}
        kept = [*dict.fromkeys([*([self.key_column] if self.key_column else []), *found])]
        for file, table in self.tables.items():
            self._check(table)
            name, start = file or table.uri.rsplit("/", 1)[-1], 0
            for batch in table.batches(columns=kept or list(self.columns[:1])):
                rows = range(start, start + batch.num_rows)
                keys = [f"{name}#{row}" for row in rows]
                if self.key_column is not None:
                    own = batch[self.key_column].to_pylist()
                    keys = [k if o is None else text(o) for k, o in zip(keys, own, strict=True)]
                for column, values in found.items():
                    values.update(v for v in batch[column].unique().to_pylist() if not lacks(v))
                parts.append(listing(keys, [file] * len(keys), list(rows), [-1] * len(keys)))
                start += batch.num_rows
            if table.ragged:  # the others are numbered without them: they come before those
                n, cells = len(table.ragged), [cells for _, cells in table.ragged]
                keys = [f"{name}#line-{number}" for number, _ in table.ragged]
                parts.append(listing(keys, [file] * n, range(-n, 0), cells))
        for setting, names, most, into in (
            ("attribute_names", self.attribute_names, LARGEST_LABEL, self.labels),
            ("categories", self.categories if self.learns else (), MOST, self.categories),
        ):
            for name in names:
                if len(values := found[name]) > most:
                    raise InputError(
                        f"data.{setting}: {name!r} has {len(values):,} values; up to {most:,} are possible"
                    )
                into[name] = [text(v) for v in sorted(values, key=by_size)]
        return pa.concat_tables(parts).sort_by([("file", "ascending"), ("index", "ascending")]).combine_chunks()

    def train_on(self, records: pa.Table) -> None:
        """See `Source.train_on`: categories are those of the usable among these rows."""
        if not (self.learns and self.categories):
            return
        seen = np.zeros(len(self.columns) + sum(map(len, self.categories.values())), bool)
        for values, _, known in self.read(records):
            if values is not None and (self.keeps_unlabelled or known is not None):
                seen |= values != 0
        start = len(self.columns)
        for name, every in self.categories.items():
            self.categories[name] = [v for v, there in zip(every, seen[start:], strict=False) if there]
            start += len(every)

    def _check(self, table: Table) -> None:
        needed = [*self.columns, *self.categories, *self.attribute_names]
        needed += [self.key_column] if self.key_column else []
        names = _names(table)
        if missing := [name for name in needed if name not in names]:
            raise InputError(f"{table.uri} has no column {missing[0]!r}, which other files of {self.uri} have")

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`; the payload is float32[width]."""
        files, lengths = records["file"].to_pylist(), records["length"].to_numpy()
        rows = records["index"].to_numpy()
        start = 0
        for stop in range(1, len(files) + 1):
            if stop == len(files) or files[stop] != files[start] or rows[stop] <= rows[stop - 1]:
                yield from self._read_run(self.tables[files[start]], rows[start:stop], lengths[start:stop])
                start = stop

    def _read_run(self, table: Table, rows: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> Iterator[Reading]:
        """Ascending rows of one table."""
        for n in lengths[rows < 0].tolist():
            yield None, f"has {n} cells, the header {len(table.schema.names)}", None
        if not len(rows := rows[rows >= 0]):
            return
        first, taken = int(rows[0]), 0
        wanted = [*dict.fromkeys([*self.columns, *self.categories, *self.attribute_names])]
        for batch in table.batches(first, wanted):
            last = int(np.searchsorted(rows, first + batch.num_rows))
            if last > taken:
                yield from self._select(batch.take(pa.array(rows[taken:last] - first)))
            first, taken = first + batch.num_rows, last
            if taken == len(rows):
                return
        yield from [(None, "the row is gone: the file has fewer", None)] * (len(rows) - taken)

    def _select(self, batch: pa.RecordBatch) -> Iterator[Reading]:
        values, wrong = self._lists(batch) if self.listed else self._columns(batch)
        codes = {name: {v: k for k, v in enumerate(self.labels[name])} for name in self.attribute_names}
        labels = {name: batch[name].to_pylist() for name in self.attribute_names}
        for row in range(batch.num_rows):
            if row in wrong:
                yield None, wrong[row], None
                continue
            known = {n: None if v[row] is None else codes[n].get(text(v[row])) for n, v in labels.items()}
            yield values[row], None, known if any(v is not None for v in known.values()) else None

    def _columns(self, batch: pa.RecordBatch) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
        """float32[N, columns and categories], and row -> why it cannot be used."""
        out = np.empty((batch.num_rows, len(self.columns)), np.float32)
        wrong: dict[int, str] = {}
        for k, name in enumerate(self.columns):
            values, reasons = numbers(batch[name])
            reasons |= {r: _odd(values[r]) for r in _unfit(values) if r not in reasons}
            with np.errstate(over="ignore"):
                out[:, k] = values
            for row, reason in reasons.items():
                wrong.setdefault(row, f"{name} {reason}")
        parts = [out]
        for name, known in self.categories.items():
            hot, reasons = one_hot(batch[name].to_pylist(), known, self.unknown)
            parts.append(hot)
            for row, reason in reasons.items():
                wrong.setdefault(row, f"{name} {reason}")
        return np.concatenate(parts, axis=1), wrong

    def _lists(self, batch: pa.RecordBatch) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
        """The same of lists."""
        name = self.columns[0]
        column = batch[name]
        out = np.zeros((batch.num_rows, self.width), np.float32)
        wrong: dict[int, str] = {}
        lengths = pc.list_value_length(column).to_pylist()
        whole = np.array([length == self.width for length in lengths])
        for row in np.flatnonzero(~whole).tolist():
            n = lengths[row]
            wrong[row] = f"{name} is empty" if n is None else f"{name} has {n} values, others {self.width}"
        fitting = column.filter(pa.array(whole))
        flat, reasons = numbers(fitting.flatten())
        values, at = flat.reshape(-1, self.width), np.flatnonzero(whole)
        with np.errstate(over="ignore"):
            out[at] = values
        for cell in (*reasons, *_unfit(flat)):
            reason = reasons.get(cell) or _odd(flat[cell])
            wrong.setdefault(int(at[cell // self.width]), f"value {cell % self.width} of {name} {reason}")
        return out, wrong


def _names(table: Table) -> Sequence[str]:
    names: Sequence[str] = table.schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{table.uri}: several columns are called {twice[0]!r}; rename or drop all but one")
    return names


def _unfit(values: np.ndarray[Any, Any]) -> Sequence[int]:
    fits = np.abs(values) <= np.finfo(np.float32).max  # NaN is not
    found: list[int] = np.flatnonzero(~fits).tolist()
    return found


def _odd(value: float) -> str:
    return "is NaN" if np.isnan(value) else "is infinite" if np.isinf(value) else "is beyond float32"
