"""The domain `images`: pictures of one size, uint8[N, R, R, 3], stored raw and given to users as PNG files."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.config import Data
from ldsaug_ray.domains.base import DOMAINS, Domain
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.sources.walk import IMAGES as FILES
from ldsaug_ray.errors import InputError


class Images(Domain):
    """Photographs, drawings, digits: what Pillow reads."""

    name, unit, item, column = "images", "images", "image", "image"
    pictures = True
    prepares = "read, check, crop and resize the images; split them into train and test"
    files, data, codec, extractor = FILES, Data, "stylegan2", "inception"
    # `datasets` decodes the column because of this note
    metadata = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}  # noqa: RUF012
    exported, task = "PNG, as datasets' Image feature", "unconditional-image-generation"
    qualities = ("sharpness",)
    reading = (  # the others make training images of them
        *("format", "image_column", "key_column", "shard_in_key", "member", "max_pixels", "max_quarantined_fraction"),
    )
    damages = ("blur", "noise", "occlusion", "shuffled patches")

    def open(self, data: Data) -> Source:
        """As of `Domain`; `sklearn:digits` too."""
        if data.format != "digits" and not data.source.startswith("sklearn:"):
            return super().open(data)
        from ldsaug_ray.domains.images.digits import DigitsSource

        if data.source != "sklearn:digits" or data.format not in ("auto", "digits"):
            raise InputError(
                f"data.source = {data.source}, data.format = {data.format}: the built-in source is sklearn:digits, "
                "with data.format auto or digits"
            )
        return DigitsSource(data.attributes == "columns", data.attribute_names)

    def read(self, payload: Any, data: Data) -> NDArray[np.uint8]:
        """uint8[R, R, 3] of a file's bytes."""
        from ldsaug_ray.domains.images.decode import decode_image

        return decode_image(
            payload, resolution=data.resolution, crop=data.crop, upscale=data.upscale, max_pixels=data.max_pixels
        )

    def read_whole(self, payload: Any, data: Data) -> NDArray[np.uint8]:
        """uint8[H, W, 3] of a file's bytes, at its own size."""
        from ldsaug_ray.domains.images.decode import decode_pixels, in_colour

        return in_colour(decode_pixels(payload, max_pixels=data.max_pixels))

    def size(self, data: Data) -> str:
        """Their side."""
        return f"{data.resolution} px"

    def empty(self, data: Data) -> NDArray[np.uint8]:
        return np.empty((0, data.resolution, data.resolution, 3), np.uint8)

    def pack(self, batch: NDArray[np.uint8]) -> pa.Array:
        """Raw pixels, binary of fixed size; not copied."""
        from ldsaug_ray.domains.images.stored import packed

        return packed(batch)

    def unpack(self, table: pa.Table, column: str | None = None) -> NDArray[np.uint8]:
        """uint8[N, R, R, 3] of raw pixels, or of PNG files of one size."""
        from ldsaug_ray.domains.images.stored import images_of

        return images_of(table, column or self.column)

    def export(self, batch: NDArray[np.uint8], names: Sequence[str], facts: Mapping[str, Any]) -> pa.Array:
        """PNG files in the Hugging Face layout."""
        from ldsaug_ray.domains.images.stored import image_column

        return image_column(batch, names)

    def show(self, batch: NDArray[np.uint8], facts: Mapping[str, Any]) -> list[str]:
        from ldsaug_ray.domains.images.stored import png_bytes

        coded = (base64.b64encode(png_bytes(x, optimize=True)).decode() for x in batch)
        return [f'<img src="data:image/png;base64,{text}" alt="">' for text in coded]

    def pixels(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return batch

    def words(self, text: str) -> str:
        """As they are."""
        return text

    def quality(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Sharpness."""
        from ldsaug_ray.domains.images.quality import sharpness

        return {"sharpness": sharpness(batch)}

    def damage(self, batch: NDArray[np.uint8], kind: Any, seed: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        from ldsaug_ray.domains.images.damage import corrupt

        return corrupt(batch, kind, seed=seed, numbers=numbers)

    def hashes(self, batch: NDArray[np.uint8], data: Data) -> NDArray[np.uint64] | None:
        """Perceptual ones, where near duplicates are looked for."""
        from ldsaug_ray.domains.images.hashing import hash_images

        return None if data.near_duplicates is None else hash_images(batch)


IMAGES = DOMAINS.add("images", Images())
