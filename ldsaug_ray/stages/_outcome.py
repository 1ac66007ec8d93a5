"""What a stage function returns for the manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ldsaug_ray.rundir import Counts


@dataclass(frozen=True)
class Outcome:
    """Counts, content digest, and further facts of the manifest entry.

    Attributes:
        processed: rows worked on, where that differs from rows_in (training sees an image many times).
    """

    counts: Counts
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    processed: int | None = None
