"""Images in Parquet: one file or many, in the Hugging Face layout (`image: struct<bytes, path>`) or a binary column.

Listing reads the key column alone; reading streams only the row groups and columns that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Data
from ldsaug_ray.domains.images.base import (
    LISTING,
    Attributes,
    Reading,
    Source,
    did_you_mean,
    listing,
    locate,
    read_or_reason,
    sign,
    unreadable,
)
from ldsaug_ray.domains.images.parquet_columns import (
    attribute_columns,
    check_image_column,
    inspect,
    is_binary,
    key_columns,
)
from ldsaug_ray.errors import InputError, StorageError

T = TypeVar("T")

_BATCH_ROWS = 64  # rows in memory at a time while a row group streams by
_BUFFER_BYTES = 1 << 22  # read a column chunk in pieces: row groups of photographs can be gigabytes
_UNIQUE_ENOUGH = 0.99  # of the image paths must differ for them to serve as keys


class ParquetSource(Source):
    """Rows of Parquet files. The key is data.key_column, else `image_id`, else the image's path, else `FILE#ROW`."""

    def __init__(self, root: Location, files: Sequence[str], data: Data, passed_over: Mapping[str, int]) -> None:
        """`files`: relative to `root`, sorted; "" where root is the one file.

        Raises:
            InputError: a file is no Parquet, a column that the settings name is missing or of the wrong type, or
                attributes are asked for and no column can hold them.
        """
        self.uri = root.uri
        self.passed_over = passed_over
        self.root = root
        self.files = tuple(files)
        self.image_column = data.image_column
        footers = self._each_file(lambda parquet: inspect(parquet, data.attributes == "columns"))
        for file, footer in zip(self.files, footers, strict=True):
            where = locate(root, file).uri
            check_image_column(footer.schema, data.image_column, where)
            if data.key_column and data.key_column not in footer.schema.names:
                advice = did_you_mean(data.key_column, footer.schema.names)
                raise InputError(f"data.key_column = {data.key_column!r}: {where} has no such column; {advice}")
        self.key_columns = key_columns(footers[0].schema, data)
        if data.attributes == "columns":
            self.attribute_names = attribute_columns(root.uri, footers, data, self.key_columns)

    def list(self) -> pa.Table:
        """See `Source.list`; a row whose key is null gets `FILE#ROW`.

        Image paths are keys only where no row lacks one and 99 % differ: many datasets store `image.png` throughout.
        """
        keys = self._each_file(self._read_keys)
        if self.key_columns and self.key_columns[0] == f"{self.image_column}.path":
            paths = pa.chunked_array(keys, pa.string())
            if paths.null_count or len(paths.unique()) < _UNIQUE_ENOUGH * len(paths):
                keys = [pa.nulls(len(k), pa.string()) for k in keys]
        parts = [LISTING.empty_table()]
        for file, column in zip(self.files, keys, strict=True):
            n = len(column)
            if column.null_count:
                name = file or self.root.name
                column = pc.coalesce(column, pa.array([f"{name}#{row}" for row in range(n)]))
            parts.append(listing(column, [file] * n, np.arange(n), np.full(n, -1)))
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
        binary = is_binary(parquet.schema_arrow.field(self.image_column).type)
        image = [self.image_column] if binary else [f"{self.image_column}.bytes", f"{self.image_column}.path"]
        first, taken = 0, 0
        batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[*image, *self.attribute_names])
        for batch in batches:
            last = int(np.searchsorted(rows, first + batch.num_rows))
            for row, attributes in self._select(batch, rows[taken:last] - first):
                value = row if binary or row is None else row.get("bytes")
                if value is not None:
                    yield value, None, attributes
                else:
                    yield self._from_path(row.get("path") if isinstance(row, dict) else None, attributes)
            first, taken = first + batch.num_rows, last
            if taken == len(rows):
                return

    def _select(self, batch: pa.RecordBatch, rows: np.ndarray) -> Iterator[tuple[Any, Attributes | None]]:
        if len(rows) == 0:
            return
        chosen = batch.take(pa.array(rows))
        columns = [chosen[name].to_pylist() for name in self.attribute_names]
        for i, image in enumerate(chosen[self.image_column].to_pylist()):
            values = {n: sign(c[i]) for n, c in zip(self.attribute_names, columns, strict=True)}
            known = any(v is not None for v in values.values())  # a row of nulls has no attributes
            yield image, values if known else None

    def _from_path(self, path: str | None, attributes: Attributes | None) -> Reading:
        """The file a row points to; only inside the source: a dataset must not read its user's other files."""
        if not path:
            return None, "the image is null", None
        if path.startswith(("/", "\\")) or "://" in path or ".." in path.split("/"):
            return None, f"the image's bytes are null and its path is outside the source: {path}", None
        folder = self.root
        if self.files == ("",):
            folder = Location(folder.fs, folder.path.rpartition("/")[0] or "/", folder.uri.rpartition("/")[0] or ".")
        payload, reason = read_or_reason(folder / path)
        if payload is None:
            return None, f"the image's bytes are null; {path}: {reason}", None
        return payload, None, attributes

    def _read_keys(self, parquet: pq.ParquetFile) -> pa.Array:
        """One file's keys as strings; null where it has none."""
        if not self.key_columns:
            return pa.nulls(parquet.metadata.num_rows, pa.string())
        table = parquet.read(columns=self.key_columns)
        column = table.column(0)
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "path")
        return column.cast(pa.string()).combine_chunks()

    def _open(self, file: str) -> pq.ParquetFile:
        place = locate(self.root, file)
        return pq.ParquetFile(place.fs.open_input_file(place.path), buffer_size=_BUFFER_BYTES)

    def _each_file(self, function: Callable[[pq.ParquetFile], T]) -> Sequence[T]:
        """function(ParquetFile) for every file, in order; a few at a time, since each waits for its footer."""

        def call(file: str) -> T:
            where = locate(self.root, file).uri
            try:
                with self._open(file) as parquet:
                    return function(parquet)
            except pa.ArrowInvalid as e:
                raise InputError(f"{where}: not a readable Parquet file ({str(e).splitlines()[0]})") from e
            except OSError as e:
                raise StorageError(f"{where}: {unreadable(e)}") from e

        with ThreadPoolExecutor(8) as pool:
            return tuple(pool.map(call, self.files))
