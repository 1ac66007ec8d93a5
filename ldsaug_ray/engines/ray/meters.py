"""Ray metrics of a stage's workers: what Prometheus finds on each node beside Ray's own of CPUs, GPUs and memory."""

from __future__ import annotations

from functools import cache
from typing import Any

MEANINGS = {
    "rows": "rows that a stage has dealt with; of trainings images",
    "seconds": "seconds that a stage's workers were at work; per second: how many are",
    "cpu_seconds": "CPU seconds of a stage's workers at work",
}


@cache
def _counters() -> dict[str, Any]:
    from ray.util.metrics import Counter

    return {name: Counter(f"ldsaug_{name}", description=text, tag_keys=("stage",)) for name, text in MEANINGS.items()}


class Meters:
    """Counters of this process: `ldsaug_rows`, `ldsaug_seconds` and `ldsaug_cpu_seconds`, by stage."""

    def __init__(self, stage: str):
        self._tags = {"stage": stage}

    def count(self, *, rows: int, seconds: float, cpu_seconds: float) -> None:
        """So much more was done."""
        for name, value in {"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds}.items():
            if value > 0:  # Ray refuses 0
                _counters()[name].inc(value, tags=self._tags)
