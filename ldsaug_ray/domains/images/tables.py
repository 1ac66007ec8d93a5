"""The tables of the prepared data: schemas, and images as arrays without a copy."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from ldsaug_ray.domains.images.base import Attributes

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
"""Images that cannot be used, and why."""


def image_schema(
    resolution: int, attribute_names: Sequence[str] | None = None, categorical: Collection[str] = ()
) -> pa.Schema:
    """Schema of prepared images: key, split, image (raw uint8 HWC RGB, fixed size), and attributes where asked for.

    `attributes` is a struct of int8 fields: 1, -1, or null where not known; `categorical` ones are int32: 0, 1, ….
    """
    fields = [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image", pa.binary(resolution * resolution * 3), nullable=False),
    ]
    if attribute_names is not None:
        each = [pa.field(n, pa.int32() if n in categorical else pa.int8()) for n in attribute_names]
        fields.append(pa.field("attributes", pa.struct(each), nullable=False))
    return pa.schema(fields)


def image_table(
    keys: Sequence[str],
    splits: Sequence[str],
    images: np.ndarray,
    attributes: Sequence[Attributes | None] | None = None,
    attribute_names: Sequence[str] = (),
    categorical: Collection[str] = (),
) -> pa.Table:
    """Prepared images as a table of `image_schema`; `images` (uint8[N, R, R, 3], contiguous) is not copied.

    Args:
        attributes: one per image, None for an image without; None altogether leaves the column out.
    """
    n, resolution = images.shape[:2]
    schema = image_schema(resolution, None if attributes is None else attribute_names, categorical)
    packed = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("image").type, n, [None, pa.py_buffer(np.ascontiguousarray(images))]
    )
    columns: list[pa.Array] = [pa.array(keys, pa.string()), pa.array(splits, pa.string()), packed]
    if attributes is not None:
        fields = schema.field("attributes").type
        values = [pa.array([a.get(f.name) if a else None for a in attributes], f.type) for f in fields]
        columns.append(pa.StructArray.from_arrays(values, fields=list(fields)))
    return pa.Table.from_arrays(columns, schema=schema)


def image_array(table: pa.Table) -> np.ndarray:
    """The `image` column as uint8[N, H, W, 3] (H = W); a read-only view of the table's memory.

    Several chunks are copied into one array, a single chunk is not.
    """
    column = table["image"]
    width = column.type.byte_width
    side = math.isqrt(width // 3)
    if side * side * 3 != width:
        raise ValueError(f"the image column has {width} bytes a row, not those of a square RGB image")
    if column.null_count:
        raise ValueError("the image column has nulls")
    parts = [_chunk_array(c, width) for c in column.chunks if len(c)]
    flat = np.empty(0, np.uint8) if not parts else parts[0] if len(parts) == 1 else np.concatenate(parts)
    images = flat.reshape(-1, side, side, 3)
    images.flags.writeable = False  # Arrow memory is shared; some of it NumPy would let us write to
    return images


def _chunk_array(chunk: pa.Array, width: int) -> np.ndarray:
    start = chunk.offset * width
    return np.frombuffer(chunk.buffers()[1], np.uint8)[start : start + len(chunk) * width]
