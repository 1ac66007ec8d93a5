"""Which columns of a Parquet dataset hold the item (an image), the key, and the attributes; no item is read for it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.sources.base import LARGEST_LABEL, composed, did_you_mean, text_of
from ldsaug_ray.domains.sources.walk import Files
from ldsaug_ray.errors import InputError

_NOT_ATTRIBUTES = ("partition", "split", "fold")  # say where an image belongs, not what it shows


def is_item(kind: pa.DataType, text: bool = False) -> bool:
    """Whether a column of this type can hold files (encoded images): binary, or a struct with a binary field `bytes`;
    or text.

    A column of nulls alone can: a file that lacks all its images is no reason to refuse the others.
    """
    if not pa.types.is_struct(kind):
        return _is_binary(kind) or pa.types.is_null(kind) or (text and _is_string(kind))
    names = [field.name for field in kind]
    return names.count("bytes") == 1 and _is_binary(kind.field("bytes").type)


def item_fields(kind: pa.DataType) -> tuple[str, ...]:
    """The fields of an image column's struct that are read; none where it is no struct."""
    if not pa.types.is_struct(kind):
        return ()
    names = [field.name for field in kind]
    has_path = names.count("path") == 1 and _is_string(kind.field("path").type)
    return ("bytes", "path") if has_path else ("bytes",)


def as_text(column: pa.Array) -> pa.Array:
    """A column of strings, integers or nulls as strings; bytes that are not UTF-8 as `text_of` writes them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    text = column.cast(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = text.cast(pa.binary()).to_pylist()
        return pa.array([None if value is None else text_of(value) for value in raw], pa.string())
    return text


def check_item_column(schema: pa.Schema, data: CommonData, of: Files, where: str) -> None:
    """Raise InputError, with the columns that could be meant, unless the settings name one that can hold files."""
    name = of.column(data)
    _check_once(schema, name, where)
    if name in schema.names and is_item(schema.field(name).type, of.text):
        return
    fitting = [f.name for f in schema if is_item(f.type, of.text) and not pa.types.is_null(f.type)]
    problem = f"is {schema.field(name).type}, not {of.an}" if name in schema.names else "is not a column of it"
    advice = (
        f"set data.{of.setting} to one that can hold {of.unit}: {', '.join(fitting)}"
        if fitting
        else f"no column can hold {of.unit} ({'string or ' * of.text}binary, or struct<bytes: binary, path: string>)"
    )
    raise InputError(
        f"{where}: data.{of.setting} = {name!r} {problem}; {advice}. Its columns: {', '.join(schema.names) or 'none'}"
    )


def key_column(schema: pa.Schema, data: CommonData, of: Files, where: str) -> str | None:
    """One file's column with the key: data.key_column, `image_id`, or the image's path; None: count the rows.

    Raises:
        InputError: data.key_column is not one column of strings or integers.
    """
    name = data.key_column or f"{of.item}_id"
    _check_once(schema, name, where)
    if name in schema.names and _is_key(schema.field(name).type):
        return name
    if data.key_column and name not in schema.names:
        advice = did_you_mean(name, schema.names)
        raise InputError(f"data.key_column = {name!r}: {where} has no such column; {advice}")
    if data.key_column and not pa.types.is_null(schema.field(name).type):
        raise InputError(
            f"data.key_column = {name!r} is {schema.field(name).type} in {where}; a key is a string or an integer"
        )
    if data.key_column is None and "path" in item_fields(schema.field(of.column(data)).type):
        return f"{of.column(data)}.path"
    return None


@dataclass(frozen=True)
class Footer:
    """What one file's footer says: its schema, and the range of each bool and integer column (None: only nulls)."""

    schema: pa.Schema
    rows: int
    ranges: dict[str, tuple[int, int] | None]


def inspect(parquet: pq.ParquetFile, with_ranges: bool) -> Footer:
    """The file's `Footer`; a column without statistics is read for its range."""
    schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    wanted = [f for f in schema if schema.names.count(f.name) == 1] if with_ranges and rows else []
    ranges = {f.name: _range(parquet, f.name) for f in wanted if _is_countable(f.type)}
    ranges |= {f.name: None for f in wanted if pa.types.is_null(f.type)}
    return Footer(schema, rows, ranges)


def attribute_columns(
    uri: str, footers: Mapping[str, Footer], data: CommonData, keys: Collection[str | None]
) -> tuple[str, ...]:
    """The columns to read as attributes, as the files call them: data.attribute_names, or all that look binary.

    A column looks binary when its type is bool, or an integer whose values all lie in {-1, 0, 1} (by the footers'
    statistics, or by reading it where they are lacking), and it is neither the key nor called partition, split or
    fold. A named column only has to have such values, or those of a label: 0, 1, …, and -1 for none. Where nothing is
    named and no column looks binary, labels are the columns that Hugging Face calls ClassLabel. A file may have nulls
    alone in it.

    Args:
        footers: by the file's address; those of the files that have rows.

    Raises:
        InputError: a name that is no column or not binary, or no binary column at all; one that a file lacks.
    """
    types: dict[str, dict[str, pa.DataType]] = {}  # column -> file -> its type there
    for where, footer in footers.items():
        for field in footer.schema:
            types.setdefault(field.name, {})[where] = field.type
    typed = [name for name, found in types.items() if any(map(_is_countable, found.values()))]
    as_stored = {composed(name): name for name in types}
    asked = [as_stored.get(name, name) for name in data.attribute_names or ()]
    for name in asked:
        if name not in types:
            raise InputError(f"data.attribute_names: {uri} has no column {name!r}; {did_you_mean(name, typed)}")
        if name not in typed and (kind := next((t for t in types[name].values() if not pa.types.is_null(t)), None)):
            raise InputError(f"data.attribute_names: {name!r} is {kind}, not bool or integer: give its values numbers")
    free = [n for n in typed if n not in _NOT_ATTRIBUTES and n not in keys]
    spans = {name: span(footers, name) for name in asked or free}
    if not asked and not any(between and -1 <= between[0] <= between[1] <= 1 for between in spans.values()):
        asked = [name for name in free if any(name in _class_labels(f.schema) for f in footers.values())]
    chosen = []
    for name in asked or free:
        for where, footer in footers.items():
            _check_once(footer.schema, name, where)
        low, high = spans[name] or (None, None)
        binary = low is not None and high is not None and low >= -1 and high <= (LARGEST_LABEL if asked else 1)
        if not binary and not asked:
            continue
        for where, footer in footers.items():
            if name not in footer.ranges:
                raise InputError(
                    f"{uri}: {name!r} is not a bool or integer column in all of its Parquet files; it is "
                    f"{types[name].get(where, 'lacking')} in {where}. Mend that file, or name the attributes to take "
                    "in data.attribute_names"
                )
        if not binary:
            values = "only nulls" if low is None else f"values from {low} to {high}"
            raise InputError(
                f"data.attribute_names: {name!r} of {uri} has {values}; an attribute is -1, 0 or 1, and a label 0 "
                f"to {LARGEST_LABEL} or -1"
            )
        chosen.append(name)
    if not chosen:
        raise InputError(
            f"data.attributes = columns: {uri} has no bool column and no integer column of -1, 0 and 1; its columns: "
            f"{', '.join(types)}. Set data.attributes to a file in CelebA's layout, or to null"
        )
    return tuple(chosen)


def span(footers: Mapping[str, Footer], name: str) -> tuple[int, int] | None:
    """Least and largest value of a column over all files; None where it has none."""
    ranges = [r for f in footers.values() if (r := f.ranges.get(name)) is not None]
    return (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else None


def _class_labels(schema: pa.Schema) -> set[str]:
    """Columns that Hugging Face's own record calls ClassLabel."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, AttributeError, TypeError):  # another's record, or none
        return set()


def _check_once(schema: pa.Schema, name: str, where: str) -> None:
    if (n := schema.names.count(name)) > 1:
        raise InputError(f"{where}: {n} columns are called {name!r}; rename or drop all but one")


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_key(kind: pa.DataType) -> bool:
    return _is_string(kind) or pa.types.is_integer(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _is_countable(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind))


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
