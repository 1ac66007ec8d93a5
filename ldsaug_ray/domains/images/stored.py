"""Images in Parquet and back: raw pixels as `prepare` writes them, PNG files in the Hugging Face layout else."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images_of(table: pa.Table, column: str = "image") -> np.ndarray:
    """A column of images of one size, raw or encoded, as uint8[N, H, W, 3]."""
    if pa.types.is_fixed_size_binary(table[column].type):
        return image_array(table, column)
    payloads = table[column].combine_chunks().field("bytes").to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(p)).convert("RGB")) for p in payloads])


def image_column(images: np.ndarray, names: Sequence[str]) -> pa.Array:
    """uint8[N, H, W, 3] as PNG files in the Hugging Face layout."""
    rows = [{"bytes": png_bytes(x), "path": f"{name}.png"} for x, name in zip(images, names, strict=True)]
    return pa.array(rows, IMAGE)


def png_bytes(image: np.ndarray, *, optimize: bool = False) -> bytes:
    """uint8[H, W], [H, W, 3] or [H, W, 4] as a PNG file; smaller, and slower, with `optimize`."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=optimize)
    return out.getvalue()


def packed(images: np.ndarray) -> pa.Array:
    """uint8[N, R, R, 3], contiguous, as raw pixels, binary of fixed size; not copied."""
    n, side = images.shape[:2]
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(side * side * 3), n, [None, pa.py_buffer(np.ascontiguousarray(images))]
    )


def image_array(table: pa.Table, name: str = "image") -> np.ndarray:
    """A column of raw pixels as uint8[N, H, W, 3] (H = W); a read-only view of the table's memory.

    Several chunks are copied into one array, a single chunk is not.
    """
    column = table[name]
    width = column.type.byte_width
    side = math.isqrt(width // 3)
    if side * side * 3 != width:
        raise ValueError(f"the {name} column has {width} bytes a row, not those of a square RGB image")
    if column.null_count:
        raise ValueError(f"the {name} column has nulls")
    parts = [_chunk_array(c, width) for c in column.chunks if len(c)]
    flat = np.empty(0, np.uint8) if not parts else parts[0] if len(parts) == 1 else np.concatenate(parts)
    images = flat.reshape(-1, side, side, 3)
    images.flags.writeable = False  # Arrow memory is shared; some of it NumPy would let us write to
    return images


def _chunk_array(chunk: pa.Array, width: int) -> np.ndarray:
    start = chunk.offset * width
    return np.frombuffer(chunk.buffers()[1], np.uint8)[start : start + len(chunk) * width]
