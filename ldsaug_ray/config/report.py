"""Section `report`."""

from __future__ import annotations

from pydantic import Field

from ldsaug_ray.config.base import Section


class Report(Section):
    """The page that shows what was selected."""

    samples: int = Field(
        16, ge=2, le=100, description="images per LDS band, selected ones shown with parents, and samples from N(0, I)"
    )
    bands: int = Field(5, ge=2, le=10, description="LDS bands of the contact sheet (the paper's Figure 2)")
