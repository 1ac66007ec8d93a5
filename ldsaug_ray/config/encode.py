"""Section `encode`."""

from __future__ import annotations

from pydantic import Field

from ldsaug_ray.config.base import Positive, Section
from ldsaug_ray.config.workers import Workers


class Encode(Section):
    """Images to posterior means."""

    batch_size: Positive = Field(64, description="images per forward pass")
    workers: Workers = Workers()
