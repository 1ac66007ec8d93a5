"""Section `data`: where the items come from and how they become training arrays: what all domains share, and images."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.config.base import Name, Positive, Section, added, how
from ldsaug_ray.config.workers import CpuWorkers

SplitSize = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0.0, le=1.0)]


class CommonData(Section):
    """Where the items come from: what every domain has. Its texts speak of images; the domain has its own word."""

    source: str = Field(
        min_length=1,
        description="image folder, Parquet file or folder, WebDataset tar(s), local or any URI, "
        "such as hf://datasets/OWNER/NAME; or sklearn:digits",
    )
    format: str = Field("auto", description="layout of the source; auto: judged from what is there")
    key_column: str | None = Field(
        None, description="Parquet: column with the unique key; none: image_id, then the image's path, then row number"
    )
    shard_in_key: bool = added(
        False, description="Parquet, tars: put the file's name before the key, where every file counts from zero"
    )
    member: str | None = added(
        None,
        min_length=1,
        description="tars: of a sample's several images the one with this suffix (left.png, left), all of them as "
        "samples (all), or none: KEY.png, else the commonest",
    )
    attributes: str | None = Field(
        None, description="attribute file in CelebA's text layout, 'columns' for Parquet columns, or none"
    )
    attribute_names: tuple[Name, ...] | None = Field(
        None, description="attributes to keep, among them labels with many values; none: all binary ones that are found"
    )
    missing_attributes: Literal["quarantine", "keep", "error"] = Field(
        "quarantine", description="an image the attribute file lacks: quarantine it, keep it without, or stop"
    )
    train: SplitSize = Field(0.8, description="training images: a count, or a fraction of the keys")
    test: SplitSize = Field(0.2, description="held-out images: a count, or a fraction of the keys")
    split_by: str | None = added(
        None,
        description="regular expression: images in whose keys it, or its groups in parentheses, match the same text "
        "are in one split together, as all takes of a speaker or rows of a patient; none: each image for itself",
    )
    max_quarantined_fraction: float = how(0.05, ge=0, le=1, description="stop when more of the images are unusable")
    part_rows: int = Field(512, ge=16, le=65_536, description="images per stored part (and unit of resumable work)")
    workers: CpuWorkers = CpuWorkers()

    @field_validator("split_by")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as e:
            raise ValueError(f"{value!r} is not a regular expression: {e}") from None
        return value

    @model_validator(mode="after")
    def _split(self) -> CommonData:
        if self.train == 0:
            raise ValueError("train: 0 leaves nothing to train on")
        if isinstance(self.train, float) and isinstance(self.test, float) and self.train + self.test > 1 + 1e-9:
            raise ValueError(f"train + test = {self.train + self.test:g} is more than all images")
        return self


class Data(CommonData):
    """Where the images come from and how they become training arrays."""

    format: Literal["auto", "folder", "parquet", "webdataset", "digits"] = Field(
        "auto", description="layout of the source; auto: judged from what is there"
    )
    image_column: str = Field("image", description="Parquet: column with the image, struct<bytes, path> or binary")
    resolution: int = Field(256, description="side of the training images, px: a power of two from 16 to 256")
    crop: Literal["center", "none"] = Field(
        "center", description="center: largest central square, then resize; none: resize and change the aspect"
    )
    upscale: bool = Field(False, description="accept images smaller than the resolution (else they are quarantined)")
    near_duplicates: int | None = added(
        6,
        ge=0,
        le=6,
        description="bits of 128 by which perceptual hashes of images may differ that are told as nearly the same; "
        "none: not looked for",
    )
    max_pixels: Positive = Field(
        64_000_000, description="an image with more pixels is a decompression bomb: quarantined"
    )
    # at most 512: at 256 px a part is 100 MB, and a worker has two of them at once
    part_rows: int = Field(512, ge=16, le=512, description="images per stored part (and unit of resumable work)")

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in (16, 32, 64, 128, 256):
            raise ValueError("must be one of 16, 32, 64, 128, 256")
        return value
