"""The summary as Markdown, and every single result and difference as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from ldsaug_ray.config.settings import Arm
from ldsaug_ray.experiment.plan import BASELINE, Plan
from ldsaug_ray.experiment.results import Result
from ldsaug_ray.experiment.summary import Comparison, Group, Row, Summary
from ldsaug_ray.metrics import MEASURES, Difference, Mean
from ldsaug_ray.report.numbers import count, value

Lines = tuple[list[str], list[list[str]]]  # head and rows

_BETTER = {"density": "↑", "coverage": "↑", "frechet": "↓", "kernel_distance": "↓"}
_LIMITS = ("bootstrap_low", "bootstrap_high", "student_low", "student_high")
HOW = (
    "An arm and its control share split, baseline and number of further steps, but for what the notes say; an arm that "
    "trains on A sees its images beside as many training images. Each training-set size has test images of its own."
)


def markdown(plan: Plan, summary: Summary) -> str:
    """A section a training-set size: the arms, what they differ by from their control, further tables, notes."""
    parts = [f"{summary.caption}\n"]
    for group in summary.groups:
        parts.append(f"## {group.title[0].upper()}{group.title[1:]}\n")
        parts.append(_table(*rows_of(summary, group)))
        if group.comparisons:
            parts.append("Arm minus its control, seed by seed: mean [95 % bootstrap interval].\n")
            parts.append(_table(*comparisons_of(summary, group)))
        for title in group.tables:
            parts += [f"### {title}\n", _table(*table_of(summary, group, title))]
        if group.detection:
            parts += ["### AUROC of log LDS: test images against\n", _table(*detection_of(group))]
        if group.notes:
            parts.append("\n".join(f"- {note}" for note in group.notes) + "\n")
    arms = [f"- **{name}**: {text}" for name, text in described(plan)]
    return "\n".join([*parts, "## Arms\n", *arms, "", HOW, ""])


def described(plan: Plan) -> list[tuple[str, str]]:
    """Each arm in words, with the settings that it changes."""
    found = [(BASELINE, "the model before any fine-tuning")]
    for name, arm in plan.config.experiment.arms.items():
        found.append((name, " · ".join(x for x in (arm.about, changes_of(arm)) if x)))
    return found


def changes_of(arm: Arm) -> str:
    """The settings of an arm as on a command line."""
    return " ".join(f"{name}={json.dumps(value, default=str)}" for name, value in arm.settings.items())


def rows_of(summary: Summary, group: Group) -> Lines:
    """All arms, and real images."""
    return _head(summary), [_row(summary, row) for row in group.rows]


def table_of(summary: Summary, group: Group, title: str) -> Lines:
    """One of the further tables; of two arms with their difference."""
    arms, difference = group.tables[title]
    known = {row.arm: row for row in group.rows}
    rows = [_row(summary, known[name]) for name in arms if name in known]
    if difference is not None:
        cells = [difference_text(difference.differences[m]) for m in summary.measures]
        rows.append([f"{difference.arm} − {difference.control}", "", "", "", *cells])
    return _head(summary), rows


def comparisons_of(summary: Summary, group: Group) -> Lines:
    """Every arm minus its control; of the first measure with Student's interval too."""
    first = next(iter(summary.compared))
    head = ["arm − control", "seeds", *(titled(m, title) for m, title in summary.compared.items())]
    head.insert(3, "the same, Student’s interval")
    rows = []
    for c in group.comparisons:
        cells = [difference_text(c.differences[m]) for m in summary.compared]
        cells.insert(1, student_text(c.differences[first]))
        pairs = max((d.n for d in c.differences.values() if d is not None), default=0)
        rows.append([f"{c.arm} − {c.control}", str(pairs), *cells])
    return head, rows


def detection_of(group: Group) -> Lines:
    """How well log LDS tells test images from damaged ones and others, by bandwidth; over the baselines."""
    groups = list(dict.fromkeys(name for name, _, _ in group.detection))
    rows = []
    for scale, centred in dict.fromkeys((scale, centred) for _, scale, centred in group.detection):
        found = [group.detection.get((name, scale, centred)) for name in groups]
        norm = "from the mean" if centred else "from the origin"
        rows.append([f"{scale:g} × norm {norm}", *map(mean_text, found)])
    return ["σ", *groups], rows


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
    lines: list[Sequence[object]] = [
        ["arm", "train_images", "seed", "images_of_a", "n", *MEASURES, *shares],
        *(
            [r.arm, r.train_images, r.cell.seed, r.n_of_a, r.setting.n, *map(r.values.get, (*MEASURES, *shares))]
            for r in results
        ),
    ]
    return _csv(lines)


def differences_csv(summary: Summary) -> str:
    """A line a training-set size, comparison and measure: mean, standard error and both intervals."""
    lines: list[Sequence[object]] = [
        ["training_set", "arm", "control", "measure", "seeds", "mean", "standard_error", *_LIMITS]
    ]
    for group in summary.groups:
        tables = [comparison for _, comparison in group.tables.values() if comparison is not None]
        for c in _distinct([*group.comparisons, *tables]):
            for measure, d in c.differences.items():
                if d is not None:
                    numbers = (d.n, d.mean, d.standard_error, d.low, d.high, d.t_low, d.t_high)
                    lines.append([group.title, c.arm, c.control, measure, *numbers])
    return _csv(lines)


def _distinct(comparisons: Iterable[Comparison]) -> list[Comparison]:
    return list({(c.arm, c.control): c for c in comparisons}.values())


def _csv(lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(["" if v is None else v for v in line] for line in lines)
    return out.getvalue()


def _head(summary: Summary) -> list[str]:
    return ["arm", "seeds", "A", "n", *(titled(m, title) for m, title in summary.measures.items())]


def _row(summary: Summary, row: Row) -> list[str]:
    of_a = count(None if row.n_of_a is None else round(row.n_of_a))
    return [row.arm, str(row.seeds), of_a, count(row.n), *(mean_text(row.means.get(m)) for m in summary.measures)]


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    signed = [None if x is None else ("+" if x > 0 else "") + value(x) for x in (mean, low, high)]
    limits = "" if low is None else f"[{signed[1]}, {signed[2]}]"
    return " ".join(x for x in (signed[0], limits) if x)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
