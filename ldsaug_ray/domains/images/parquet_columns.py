"""Which columns of a Parquet dataset hold the image, the key, and the attributes: judged before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ldsaug_ray.config import Data
from ldsaug_ray.domains.images.base import did_you_mean
from ldsaug_ray.errors import InputError

_NOT_ATTRIBUTES = ("partition", "split", "fold")  # say where an image belongs, not what it shows


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column of this type holds byte strings."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_image(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold encoded images: binary, or a struct with a binary field `bytes`."""
    if not pa.types.is_struct(kind):
        return is_binary(kind)
    return any(kind.field(i).name == "bytes" and is_binary(kind.field(i).type) for i in range(kind.num_fields))


def check_image_column(schema: pa.Schema, name: str, where: str) -> None:
    """Raise InputError, with the columns that could be meant, unless `name` can hold images."""
    if name in schema.names and is_image(schema.field(name).type):
        return
    fitting = [f.name for f in schema if is_image(f.type)]
    problem = f"is {schema.field(name).type}, not an image" if name in schema.names else "is not a column of it"
    advice = (
        f"set data.image_column to one that can hold images: {', '.join(fitting)}"
        if fitting
        else "no column can hold images (binary, or struct<bytes: binary, path: string>)"
    )
    raise InputError(
        f"{where}: data.image_column = {name!r} {problem}; {advice}. Its columns: {', '.join(schema.names) or 'none'}"
    )


def key_columns(schema: pa.Schema, data: Data) -> list[str]:
    """The column with the key: data.key_column, `image_id`, or the image's path; empty: count the rows."""
    if data.key_column:
        kind = schema.field(data.key_column).type
        if not _is_key(kind):
            raise InputError(f"data.key_column = {data.key_column!r} is {kind}; a key is a string or an integer")
        return [data.key_column]
    if "image_id" in schema.names and _is_key(schema.field("image_id").type):
        return ["image_id"]
    image = schema.field(data.image_column).type
    if pa.types.is_struct(image) and any(image.field(i).name == "path" for i in range(image.num_fields)):
        return [f"{data.image_column}.path"]
    return []


@dataclass(frozen=True)
class Footer:
    """What one file's footer says: its schema, and the range of each bool and integer column (None: only nulls)."""

    schema: pa.Schema
    ranges: dict[str, tuple[int, int] | None]


def inspect(parquet: pq.ParquetFile, with_ranges: bool) -> Footer:
    """The file's `Footer`; a column without statistics is read for its range."""
    schema = parquet.schema_arrow
    return Footer(schema, {n: _range(parquet, n) for n in _countable(schema)} if with_ranges else {})


def attribute_columns(uri: str, footers: Sequence[Footer], data: Data, keys: Sequence[str]) -> tuple[str, ...]:
    """The columns to read as attributes: data.attribute_names, or every one that looks binary.

    A column looks binary when its type is bool, or an integer whose values all lie in {-1, 0, 1} (by the footers'
    statistics, or by reading it where they are lacking), and it is neither the key nor called partition, split or
    fold. A named column only has to have such values.

    Raises:
        InputError: a name that is no column or not binary, or no binary column at all.
    """
    schema = footers[0].schema
    typed = _countable(schema)
    for name in data.attribute_names or ():
        if name not in schema.names:
            raise InputError(f"data.attribute_names: {uri} has no column {name!r}; {did_you_mean(name, typed)}")
        if name not in typed:
            raise InputError(f"data.attribute_names: {name!r} is {schema.field(name).type}, not bool or integer")
    chosen = []
    for name in data.attribute_names or [n for n in typed if n not in _NOT_ATTRIBUTES and n not in keys]:
        if any(name not in f.ranges for f in footers):
            raise InputError(f"{uri}: {name!r} is not a bool or integer column in all of its Parquet files")
        ranges = [r for r in (f.ranges[name] for f in footers) if r is not None]
        low, high = min((r[0] for r in ranges), default=None), max((r[1] for r in ranges), default=None)
        if low is not None and high is not None and low >= -1 and high <= 1:
            chosen.append(name)
        elif data.attribute_names:
            values = "only nulls" if low is None else f"values from {low} to {high}"
            raise InputError(f"data.attribute_names: {name!r} of {uri} has {values}; an attribute is -1, 0 or 1")
    if not chosen:
        raise InputError(
            f"data.attributes = columns: {uri} has no bool column and no integer column of -1, 0 and 1; its columns: "
            f"{', '.join(schema.names)}. Set data.attributes to a file in CelebA's layout, or to null"
        )
    return tuple(chosen)


def _is_key(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_integer(kind)
    )


def _countable(schema: pa.Schema) -> list[str]:
    return [f.name for f in schema if pa.types.is_boolean(f.type) or pa.types.is_integer(f.type)]


def _range(parquet: pq.ParquetFile, name: str) -> tuple[int, int] | None:
    paths = [parquet.schema.column(j).path for j in range(len(parquet.schema))]
    column = paths.index(name)
    found: list[int] = []
    for g in range(parquet.num_row_groups):
        statistics = parquet.metadata.row_group(g).column(column).statistics
        if statistics is not None and statistics.has_min_max:
            found += [int(statistics.min), int(statistics.max)]
        else:
            extremes = pc.min_max(parquet.read_row_group(g, columns=[name])[name]).as_py()
            found += [int(v) for v in extremes.values() if v is not None]
    return (min(found), max(found)) if found else None
