"""Section `decode`."""

from __future__ import annotations

from pydantic import Field

from ldsaug_ray.config.base import Positive, Section
from ldsaug_ray.config.workers import Workers


class Decode(Section):
    """Selected latents to images."""

    sharpest: float = Field(
        0.5,
        gt=0,
        le=1,
        description="with select.which: lds+sharpness: share of the decoded images that is kept, the sharpest by the "
        "variance of the Laplacian",
    )
    batch_size: Positive = Field(64, description="latents per forward pass")
    part_rows: Positive = Field(512, description="images per stored part (and unit of resumable work)")
    workers: Workers = Workers()
