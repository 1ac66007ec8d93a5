"""Section `frontier`: rules and samplers compared at equal authenticity."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from ldsaug_ray.config.base import Positive, Section


def slug(name: str) -> str:
    """A folder's name for a name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


class Frontier(Section):
    """Rules and samplers against noise about training latents, by `ldsaug frontier`; not part of `run`."""

    n: Positive = Field(
        2_000, description="images of each, decoded by the baseline; of A in a search by measures of its images"
    )
    noise: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
        min_length=2,
        description="the reference curve: noise about training latents, of these shares of the median distance to the "
        "nearest other",
    )
    rules: dict[str, dict[str, Any]] = Field(
        {},
        description="other A of the same scores, beside the run's, random and balanced: a name, and settings of select "
        "that differ",
    )
    samplers: dict[str, dict[str, Any]] = Field(
        {},
        description="beside N(0, I), interpolants, neighbours and LDS of noise: a name, and settings of sample that "
        "say what latents are drawn from",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Frontier:
        curve = [f"noise {share:g}" for share in self.noise]
        names = [slug(name) for name in ("A", "reconstructions", *curve, *self.rules, *self.samplers)]
        if twice := sorted({name for name in names if names.count(name) > 1 or not name}):
            raise ValueError(
                "rules, samplers and noise of the curve need names that differ in letters or digits; found "
                f"{twice[0]!r} twice"
            )
        return self
