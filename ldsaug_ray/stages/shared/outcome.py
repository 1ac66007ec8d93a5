"""What a stage function returns for the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ldsaug_ray.run.directory import Counts, UnitResult, total


@dataclass(frozen=True)
class Outcome:
    """Counts, content digest, and further facts of the manifest entry.

    Attributes:
        processed: rows worked on, where that differs from rows_in (training sees an image many times).
        cleanup: called once the manifest has the stage: what serves resuming alone must not go before.
    """

    counts: Counts
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    processed: int | None = None
    cleanup: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, results: Iterable[UnitResult], facts: Mapping[str, Any] = {}, processed: int | None = None) -> Outcome:
        """Of all units together."""
        units = list(results)
        return cls(*total(units), {**worker_seconds(units), **facts}, processed)


def worker_seconds(units: Iterable[UnitResult]) -> dict[str, float]:
    """Seconds of all their workers at work, and of these workers' CPUs; interrupted attempts too."""
    extra = [unit.extra for unit in units]
    return {
        f"worker_{name}": round(sum(e[name] for e in extra), 3)
        for name in ("seconds", "cpu_seconds")
        if extra and all(name in e for e in extra)
    }
