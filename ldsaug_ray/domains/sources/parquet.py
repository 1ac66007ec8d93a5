"""Images in Parquet: one file or many, in the Hugging Face layout (`image: struct<bytes, path>`) or a binary column.

Listing reads the key column alone; reading streams only the row groups and columns that are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ldsaug_ray.common.pointers import POINTER_BYTES
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.sources.base import (
    LISTING,
    Attributes,
    Reading,
    Source,
    attributes_from,
    composed,
    listing,
    locate,
    not_a,
    read_or_reason,
    shard_keys,
    unreadable,
)
from ldsaug_ray.domains.sources.parquet_columns import (
    as_text,
    attribute_columns,
    check_item_column,
    inspect,
    item_fields,
    key_column,
    span,
)
from ldsaug_ray.domains.sources.walk import IMAGES, Files
from ldsaug_ray.errors import InputError, StorageError

T = TypeVar("T")

_BATCH_ROWS = 64  # rows in memory at a time while a row group streams by
_BUFFER_BYTES = 1 << 22  # read a column chunk in pieces: row groups of photographs can be gigabytes
_UNIQUE_ENOUGH = 0.99  # of the image paths must differ for them to serve as keys


class ParquetSource(Source):
    """Rows of Parquet files. The key is data.key_column, else `image_id`, else the image's path, else `FILE#ROW`."""

    def __init__(
        self, root: Location, files: Sequence[str], data: CommonData, passed_over: Mapping[str, int], of: Files = IMAGES
    ) -> None:
        """`files`: relative to `root`, sorted; "" where root is the one file.

        Raises:
            InputError: a file is no Parquet, a column that the settings name is missing or of the wrong type, or
                attributes are asked for and no column can hold them.
        """
        self.uri = root.uri
        self.root, self.of = root, of
        self.attribute_columns: tuple[str, ...] = ()
        self.shard_in_key = data.shard_in_key
        ranges = data.attributes == "columns"
        footers = self._each_file(files, lambda _, parquet: inspect(parquet, ranges))
        filled = {file: footer for file, footer in zip(files, footers, strict=True) if footer.rows}
        empty = len(footers) - len(filled)
        self.passed_over = {**passed_over, **({"Parquet files without rows": empty} if empty else {})}
        if not filled:
            raise InputError(f"{root.uri}: no row in {len(files)} Parquet file{'s' * (len(files) > 1)}")
        self.files = tuple(filled)
        names = [name for footer in filled.values() for name in footer.schema.names]
        stored = {composed(name): name for name in names} | {name: name for name in names}
        given = {of.setting: of.column(data), "key_column": data.key_column}
        data = data.model_copy(update={k: stored.get(v, stored.get(composed(v), v)) for k, v in given.items() if v})
        self.item_column = of.column(data)
        self.key_columns: dict[str, str | None] = {}
        for file, footer in filled.items():
            where = locate(root, file).uri
            check_item_column(footer.schema, data, of, where)
            self.key_columns[file] = key_column(footer.schema, data, of, where)
        if ranges:
            by_address = {locate(root, file).uri: footer for file, footer in filled.items()}
            self.attribute_columns = attribute_columns(root.uri, by_address, data, self.key_columns.values())
            self.attribute_names = tuple(composed(name) for name in self.attribute_columns)
            largest = {name: span(by_address, name) or (0, 0) for name in self.attribute_columns}
            self.categorical = frozenset(composed(name) for name, (_, high) in largest.items() if high > 1)

    def list(self) -> pa.Table:
        """See `Source.list`; a row whose key is null gets `FILE#ROW`.

        Image paths are keys only where no row lacks one and 99 % differ: many datasets store `image.png` throughout.
        Where not all keys come from one column, a note says so.
        """
        path = f"{self.item_column}.path"
        keys = self._each_file(self.files, self._read_keys)
        by_path = [k for f, k in zip(self.files, keys, strict=True) if self.key_columns[f] == path]
        paths = pa.chunked_array(by_path, pa.string())
        paths_differ = not paths.null_count and len(paths.unique()) >= _UNIQUE_ENOUGH * len(paths)
        before = shard_keys([file or self.root.name for file in self.files])
        parts = [LISTING.empty_table()]
        kinds: Counter[str] = Counter()  # where keys come from -> rows
        counting: list[str] = []  # files with a row that has no key of its own
        for file, column in zip(self.files, keys, strict=True):
            n, name = len(column), file or self.root.name
            if self.key_columns[file] == path and not paths_differ:
                column = pa.nulls(n, pa.string())
            kinds.update({self.key_columns[file] or "FILE#ROW": n - column.null_count, "FILE#ROW": column.null_count})
            counting += [name] * (column.null_count > 0)
            if self.shard_in_key:
                column = pc.binary_join_element_wise(pa.scalar(before[name]), column, "/")
            if column.null_count:
                column = pc.coalesce(column, pa.array([f"{name}#{row}" for row in range(n)]))
            parts.append(listing(column, [file] * n, np.arange(n), np.full(n, -1)))
        if len(kinds := +kinds) > 1:
            beside = ", ".join(f"{what} of {n} rows" for what, n in kinds.most_common())
            where = f" (FILE#ROW in {', '.join(counting[:3])}{', …' * (len(counting) > 3)})" if counting else ""
            self.notes = (f"keys of {self.uri} are of several kinds: {beside}{where}; data.key_column sets one",)
        return pa.concat_tables(parts).combine_chunks()

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`. Each run of ascending rows of one file opens it once."""
        files, rows = records["file"].to_pylist(), records["index"].to_numpy()
        start = 0
        for stop in range(1, len(files) + 1):
            if stop == len(files) or files[stop] != files[start] or rows[stop] <= rows[stop - 1]:
                yield from self._read_run(files[start], rows[start:stop])
                start = stop

    def _read_run(self, file: str, rows: np.ndarray) -> Iterator[Reading]:
        try:
            parquet = self._open(file)
        except (OSError, pa.ArrowException) as e:
            yield from [(None, unreadable(e), None)] * len(rows)
            return
        with parquet:
            sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
            ends = np.cumsum([0, *sizes])
            groups = np.searchsorted(ends, rows, side="right") - 1
            for group in np.unique(groups):
                wanted = rows[groups == group]
                if group >= len(sizes):  # the file was replaced by a shorter one since it was listed
                    yield from [(None, f"the row is gone: the file has {ends[-1]} rows", None)] * len(wanted)
                    continue
                done = 0
                try:
                    for reading in self._read_group(parquet, int(group), wanted - ends[group]):
                        yield reading
                        done += 1
                except (OSError, pa.ArrowException) as e:
                    yield from [(None, unreadable(e), None)] * (len(wanted) - done)

    def _read_group(self, parquet: pq.ParquetFile, group: int, rows: np.ndarray) -> Iterator[Reading]:
        """Ascending `rows` of one row group; stops decoding after the last."""
        fields = item_fields(parquet.schema_arrow.field(self.item_column).type)
        image = [f"{self.item_column}.{name}" for name in fields] or [self.item_column]
        first, taken = 0, 0
        batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[*image, *self.attribute_columns])
        for batch in batches:
            last = int(np.searchsorted(rows, first + batch.num_rows))
            for value, path, attributes in self._select(batch, rows[taken:last] - first, fields):
                yield (value, None, attributes) if value is not None else self._from_path(path, attributes)
            first, taken = first + batch.num_rows, last
            if taken == len(rows):
                return

    def _select(
        self, batch: pa.RecordBatch, rows: np.ndarray, fields: Sequence[str]
    ) -> Iterator[tuple[bytes | None, str | None, Attributes | None]]:
        """(bytes, path, attributes) of some rows of a batch."""
        if len(rows) == 0:
            return
        chosen = pa.array(rows)
        columns = [batch[name].take(chosen).to_pylist() for name in self.attribute_columns]
        image = batch[self.item_column]
        data = pc.struct_field(image, "bytes") if fields else image
        if not (fields or pa.types.is_binary(data.type) or pa.types.is_null(data.type)):
            data = data.cast(pa.large_binary())  # views cannot be taken from, and text is read as bytes
        payloads = data.take(chosen).to_pylist()
        paths = [None] * len(rows)
        if "path" in fields:
            paths = as_text(pc.struct_field(image, "path")).take(chosen).to_pylist()
        for i, (payload, path) in enumerate(zip(payloads, paths, strict=True)):
            values = {n: c[i] for n, c in zip(self.attribute_names, columns, strict=True)}
            yield payload, path, attributes_from(values, self.categorical)

    def _from_path(self, path: str | None, attributes: Attributes | None) -> Reading:
        """The file a row points to; only inside the source: a dataset must not read its user's other files."""
        if not path:
            return None, f"the {self.of.item} is null", None
        if path.startswith(("/", "\\")) or "://" in path or ".." in path.split("/"):
            return None, f"the {self.of.item}'s bytes are null and its path is outside the source: {path}", None
        folder = self.root
        if self.files == ("",):
            folder = Location(folder.fs, folder.path.rpartition("/")[0] or "/", folder.uri.rpartition("/")[0] or ".")
        payload, reason = read_or_reason(folder / path)
        if payload is None:
            return None, f"the {self.of.item}'s bytes are null; {path}: {reason}", None
        return payload, None, attributes

    def _read_keys(self, file: str, parquet: pq.ParquetFile) -> pa.Array:
        """One file's keys as strings; null where it has none."""
        name = self.key_columns[file]
        if name is None:
            return pa.nulls(parquet.metadata.num_rows, pa.string())
        column = parquet.read(columns=[name]).column(0).combine_chunks()
        return as_text(pc.struct_field(column, "path") if pa.types.is_struct(column.type) else column)

    def _open(self, file: str) -> pq.ParquetFile:
        place = locate(self.root, file)
        return pq.ParquetFile(place.fs.open_input_file(place.path), buffer_size=_BUFFER_BYTES)

    def _each_file(self, files: Sequence[str], function: Callable[[str, pq.ParquetFile], T]) -> Sequence[T]:
        """function(file, ParquetFile) for every file, in order; a few at a time, since each waits for its footer."""

        def call(file: str) -> T:
            place = locate(self.root, file)
            try:
                with self._open(file) as parquet:
                    return function(file, parquet)
            except pa.ArrowException as e:
                with place.fs.open_input_file(place.path) as raw:
                    raise InputError(f"{place.uri}: {not_a('readable Parquet', raw.read(POINTER_BYTES), e)}") from e
            except OSError as e:
                raise StorageError(f"{place.uri}: {unreadable(e)}") from e

        with ThreadPoolExecutor(8) as pool:
            return tuple(pool.map(call, files))
