"""The summary as rows of tables, and every single result and difference as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from ldsaug_ray.config import Arm
from ldsaug_ray.experiment.plan import BASELINE, Plan
from ldsaug_ray.experiment.results import Result, measures_of
from ldsaug_ray.experiment.summary import Comparison, Group, Row, Summary
from ldsaug_ray.metrics import Difference, Mean
from ldsaug_ray.report.numbers import count, value

Lines = tuple[list[str], list[list[str]]]  # head and rows

_LIMITS = ("bootstrap_low", "bootstrap_high", "student_low", "student_high")
HOW = (
    "An arm and its control share split, baseline, number of further steps and the training images of each, but for "
    "what the notes say; what an arm takes of A, and a discriminator, come on top. AuthPct in the row of training "
    "images is that of held-out real ones. Each training-set size has test images of its own."
)
_DETECTION = (
    "Area under the ROC curve of log LDS, test images against each group, in the baselines’ latents: 1 is perfect, 0.5 "
    "chance, and below that the damaged images are denser than the intact ones. LDS knows no offset: the norm’s origin "
    "changes only what σ is a share of, and where the latents’ mean is 0 already, nothing."
)


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
    head = ["arm − control", "seeds", *_titles(summary, summary.compared)]
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


def detection_words(plan: Plan) -> str:
    """What the table of `detection_of` shows."""
    others = plan.config.evaluate.detection.others
    return f"{_DETECTION}{'' if others is None else f' The others are {others}.'}"


def _titles(summary: Summary, measures: Mapping[str, str]) -> list[str]:
    return [f"{title} {summary.arrows.get(m, '')}".rstrip() for m, title in measures.items()]


def mean_text(mean: Mean | None, seeds: int = 0) -> str:
    """12.3 ± 0.4, and of how many seeds where that is not all of them."""
    if mean is None:
        return "–"
    return f"{value(mean.mean, mean.standard_error)}{f' (n = {mean.n})' if mean.n < seeds else ''}"


def difference_text(found: Difference | None) -> str:
    """−1.2 [−2.0, −0.4]."""
    return "–" if found is None else _interval(found.mean, found.low, found.high)


def student_text(found: Difference | None) -> str:
    """[−2.0, −0.4]."""
    if found is None or found.t_low is None:
        return "–"
    return _interval(None, found.t_low, found.t_high)


def signed(x: float) -> str:
    return ("+" if x > 0 else "") + value(x)


def results_csv(results: Sequence[Result]) -> str:
    """A line an arm, training-set size and seed, with every measure."""
    measures = [m.name for m in measures_of(results)]
    shares = list(dict.fromkeys(m for r in results for m in r.values if m not in measures))
    lines: list[Sequence[object]] = [
        ["arm", "train_images", "seed", "images_of_a", "n", *measures, *shares],
        *(
            [r.arm, r.train_images, r.cell.seed, r.n_of_a, r.setting.n, *map(r.values.get, (*measures, *shares))]
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
    return ["arm", "seeds", "A", "n", *_titles(summary, summary.measures)]


def _row(summary: Summary, row: Row) -> list[str]:
    of_a = count(None if row.n_of_a is None else round(row.n_of_a))
    cells = [mean_text(row.means.get(m), row.seeds) for m in summary.measures]
    return [row.arm, str(row.seeds), of_a, count(row.n), *cells]


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    rounding = 1e-9 * max(abs(x or 0.0) for x in (mean, low, high))  # seeds that cancel leave that much
    texts = [None if x is None else signed(x if abs(x) > rounding else 0.0) for x in (mean, low, high)]
    limits = "" if low is None else f"[{texts[1]}, {texts[2]}]"
    return " ".join(x for x in (texts[0], limits) if x)
