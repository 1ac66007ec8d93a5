"""The summary as Markdown, for `docs/` and reviews: it says all that the page says, but for pictures."""

from __future__ import annotations

from collections.abc import Sequence

from ldsaug_ray.experiment.plan import Plan
from ldsaug_ray.experiment.summary import Summary
from ldsaug_ray.experiment.tables import (
    HOW,
    comparisons_of,
    described,
    detection_of,
    detection_words,
    rows_of,
    table_of,
)
from ldsaug_ray.experiment.words import findings

NOTES = 12  # on single runs, of each size


def markdown(plan: Plan, summary: Summary) -> str:
    """A section a training-set size: the arms, what they differ by from their control, further tables, notes."""
    parts = [f"{summary.caption}\n"]
    for group in summary.groups:
        parts.append(f"## {group.title[0].upper()}{group.title[1:]}\n")
        parts.append("\n".join(f"- {sentence}" for sentence in findings(group)) + "\n")
        if group.rows:
            parts.append(_table(*rows_of(summary, group)))
        if group.comparisons:
            parts.append("Arm minus its control, seed by seed: mean [95 % bootstrap interval].\n")
            parts.append(_table(*comparisons_of(summary, group)))
        for title in group.tables:
            parts += [f"### {title}\n", _table(*table_of(summary, group, title))]
        if group.detection:
            parts += ["### AUROC of log LDS: test images against\n", f"{detection_words(plan)}\n"]
            parts.append(_table(*detection_of(group)))
        if group.notes:
            parts.append("\n".join(f"- {note}" for note in group.notes) + "\n")
        if group.run_notes:
            notes = "\n".join(f"- {note}" for note in group.run_notes[:NOTES])
            parts.append(f"What single runs could not measure well:\n\n{notes}\n")
    arms = [f"- **{name}**: {text}" for name, text in described(plan)]
    return "\n".join([*parts, "## Arms\n", *arms, "", HOW, ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
