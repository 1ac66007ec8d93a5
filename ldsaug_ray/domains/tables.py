"""The tables of prepared data: units of work, what is set aside, items with their keys, splits and attributes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from ldsaug_ray.domains.sources.base import Attributes

UNIT = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)
"""A unit of work: rows of a source's listing with their split."""

QUARANTINE = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
    ]
)
"""Items that cannot be used, and why."""


def item_table(
    column: str,
    items: pa.Array,
    keys: Sequence[str],
    splits: Sequence[str],
    attributes: Sequence[Attributes | None] | None = None,
    attribute_names: Sequence[str] = (),
    categorical: Collection[str] = (),
) -> pa.Table:
    """Prepared items: key, split, the packed items under the name `column`, and attributes where asked for.

    `attributes` is a struct of int8 fields: 1, -1, or null where not known; `categorical` ones are int32: 0, 1, ….

    Args:
        attributes: one per item, None for an item without; None altogether leaves the column out.
    """
    fields = [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field(column, items.type, nullable=False),
    ]
    columns: list[pa.Array] = [pa.array(keys, pa.string()), pa.array(splits, pa.string()), items]
    if attributes is not None:
        each = [pa.field(n, pa.int32() if n in categorical else pa.int8()) for n in attribute_names]
        fields.append(pa.field("attributes", pa.struct(each), nullable=False))
        values = [pa.array([a.get(f.name) if a else None for a in attributes], f.type) for f in each]
        columns.append(pa.StructArray.from_arrays(values, fields=each))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
