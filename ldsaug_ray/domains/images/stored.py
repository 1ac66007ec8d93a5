"""Images in Parquet and back: raw pixels as `prepare` writes them, PNG files in the Hugging Face layout else."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.images.tables import image_array

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# `datasets` decodes the column because of this note
HUGGING_FACE = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}


def read_images(file: Location) -> np.ndarray:
    """Images of one stored part, uint8[N, H, W, 3]: raw as `prepare` writes them or encoded as `decode` does."""
    return images_of(file.read_table(columns=["image"]))


def images_of(table: pa.Table, column: str = "image") -> np.ndarray:
    """A column of images of one size, raw (of that name alone) or encoded, as uint8[N, H, W, 3]."""
    if pa.types.is_fixed_size_binary(table[column].type):
        return image_array(table)
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
