"""Section `report`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ldsaug_ray.config.base import Section, added


class Report(Section):
    """The page that shows what was selected."""

    samples: int = Field(
        16,
        ge=2,
        le=100,
        description="images per LDS band, selected ones with parents, samples from N(0, I); at most of each gallery",
    )
    bands: int = Field(5, ge=2, le=10, description="LDS bands of the contact sheet (the paper's Figure 2)")
    sigmas: tuple[Annotated[float, Field(gt=0)], ...] = added(
        (),
        description="further bandwidths of the explorer, as multiples of the run's sigma, such as [0.5, 2]: its at "
        "most 50,000 candidates are scored again at each",
    )
