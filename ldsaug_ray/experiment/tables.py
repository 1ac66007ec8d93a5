"""The summary as Markdown, and every single result as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ldsaug_ray.experiment.results import Result
from ldsaug_ray.experiment.summary import LOWER_IS_BETTER, Group, Summary
from ldsaug_ray.metrics import MEASURES, Difference, Mean
from ldsaug_ray.report.numbers import count, value

_BETTER = {"density": "↑", "coverage": "↑", **dict.fromkeys(LOWER_IS_BETTER, "↓")}


def markdown(summary: Summary) -> str:
    """A section a training-set size: the arms, what they differ by from their control, further tables, notes."""
    parts = [f"{summary.caption}\n"]
    for group in summary.groups:
        parts.append(f"## {group.title[0].upper()}{group.title[1:]}\n")
        parts.append(_table(*rows_of(summary, group)))
        if group.comparisons:
            parts.append("Arm minus its control, seed by seed: mean [95 % bootstrap interval].\n")
            parts.append(_table(*comparisons_of(summary, group)))
        for title, arms in summary.tables.items():
            parts += [f"### {title}\n", _table(*rows_of(summary, group, arms))]
        if group.notes:
            parts.append("\n".join(f"- {note}" for note in group.notes) + "\n")
    return "\n".join(parts)


def rows_of(summary: Summary, group: Group, arms: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a group's table, or of some of its arms in that order."""
    known = {row.arm: row for row in group.rows}
    shown = list(known.values()) if arms is None else [known[name] for name in arms if name in known]
    head = ["arm", "A", *(titled(m, title) for m, title in summary.measures.items())]
    rows = [
        [
            r.arm,
            count(None if r.n_of_a is None else round(r.n_of_a)),
            *(mean_text(r.means.get(m)) for m in summary.measures),
        ]
        for r in shown
    ]
    return head, rows


def comparisons_of(summary: Summary, group: Group) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a group's differences; of the first measure with Student's interval too."""
    first = next(iter(summary.compared))
    head = ["arm − control", *(titled(m, title) for m, title in summary.compared.items())]
    head.insert(2, "the same, Student’s interval")
    rows = []
    for c in group.comparisons:
        cells = [difference_text(c.differences[m]) for m in summary.compared]
        cells.insert(1, student_text(c.differences[first]))
        rows.append([f"{c.arm} − {c.control}", *cells])
    return head, rows


def titled(measure: str, title: str) -> str:
    """With an arrow to what is better, where that is agreed."""
    return f"{title} {_BETTER[measure]}" if measure in _BETTER else title


def mean_text(mean: Mean | None) -> str:
    """12.3 ± 0.4."""
    return "–" if mean is None else value(mean.mean, mean.standard_error)


def difference_text(found: Difference | None) -> str:
    """−1.2 [−2.0, −0.4]."""
    return "–" if found is None else _interval(found.mean, found.low, found.high)


def student_text(found: Difference | None) -> str:
    """[−2.0, −0.4]."""
    if found is None or found.t_low is None:
        return "–"
    return _interval(None, found.t_low, found.t_high)


def results_csv(results: Sequence[Result]) -> str:
    """A line an arm, training-set size and seed, with every measure."""
    shares = list(dict.fromkeys(m for r in results for m in r.values if m not in MEASURES))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "train_images", "seed", "images_of_a", "n", *MEASURES, *shares])
    for r in results:
        numbers = [r.values.get(m) for m in (*MEASURES, *shares)]
        cell = [r.arm, r.cell.train, r.cell.seed, r.n_of_a, r.setting.n]
        writer.writerow(["" if v is None else v for v in (*cell, *numbers)])
    return out.getvalue()


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    signed = [None if x is None else ("+" if x > 0 else "") + value(x) for x in (mean, low, high)]
    limits = "" if low is None else f"[{signed[1]}, {signed[2]}]"
    return " ".join(x for x in (signed[0], limits) if x)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
