"""What a run has set aside, and why, for the report and the status of the run."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from ldsaug_ray.run.directory import RunDir

REASONS_SHOWN, EXAMPLES_SHOWN = 12, 3


@dataclass(frozen=True)
class Reason:
    """Why images were set aside."""

    reason: str
    count: int
    examples: tuple[str, ...]  # keys


@dataclass(frozen=True)
class Quarantine:
    """All reasons, the most frequent first; `others` are those not listed."""

    reasons: tuple[Reason, ...]
    total: int
    others: int  # images with a reason that is not listed


def read_quarantine(run: RunDir) -> Quarantine:
    """Reasons and examples from every file in `quarantine/`."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = defaultdict(list)
    for file in run.folder("quarantine").files(".parquet"):
        table = file.read_table(["key", "reason"])
        for key, reason in zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True):
            counts[reason] += 1
            if len(examples[reason]) < EXAMPLES_SHOWN:
                examples[reason].append(key)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = tuple(Reason(reason, n, tuple(examples[reason])) for reason, n in ordered[:REASONS_SHOWN])
    return Quarantine(listed, counts.total(), counts.total() - sum(r.count for r in listed))
