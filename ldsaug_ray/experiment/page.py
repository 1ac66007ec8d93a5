"""The page of an experiment: tables, differences, samples of every arm from the same latents. One HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

import ldsaug_ray
from ldsaug_ray.common.secrets import without_passwords
from ldsaug_ray.domains import domain_of
from ldsaug_ray.experiment.plan import Plan
from ldsaug_ray.experiment.results import Result, read_samples
from ldsaug_ray.experiment.summary import Group, Summary
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
from ldsaug_ray.report import figures
from ldsaug_ray.report._scores import data_uri
from ldsaug_ray.report.page import on_page, templates
from ldsaug_ray.report.sheets import COLUMNS, Shown

_KINDS = {"csv": "text/csv", "md": "text/markdown"}
_DRAWN = ("frechet", "coverage")  # measures whose differences are drawn


def experiment_page(
    plan: Plan, summary: Summary, results: Sequence[Result], name: str, files: Mapping[str, str]
) -> str:
    """The page as HTML text.

    Args:
        files: what lies beside the page, name -> text, to be downloaded from it.
    """
    groups = [
        {
            "group": group,
            "findings": findings(group),
            "rows": rows_of(summary, group),
            "comparisons": comparisons_of(summary, group),
            "tables": {title: table_of(summary, group, title) for title in group.tables},
            "detection": detection_of(group) if group.detection else None,
            "charts": _charts(summary, group),
            "samples": {arm: on_page(items) for arm, items in _samples(plan, group, results).items()},
        }
        for group in summary.groups
    ]
    return (
        templates(domain_of(plan.config).words)
        .get_template("experiment/page.html.j2")
        .render(
            name=name,
            version=ldsaug_ray.__version__,
            summary=summary,
            arms=described(plan),
            how=HOW,
            detection=detection_words(plan),
            groups=groups,
            done=len(results),
            planned=len(plan.runs),
            resolution=getattr(plan.config.data, "resolution", 64),
            settings=yaml.safe_dump(without_passwords(plan.config.dump()), sort_keys=False, allow_unicode=True),
            files={name: data_uri(_KINDS[name.rpartition(".")[2]], text.encode()) for name, text in files.items()},
        )
    )


def _charts(summary: Summary, group: Group) -> list[tuple[str, str, str]]:
    """Title, alt text and picture of each figure."""
    charts = []
    for measure in (m for m in _DRAWN if m in summary.compared):
        title = summary.compared[measure]
        found = [(c.arm, d) for c in group.comparisons if (d := c.differences[measure]) is not None]
        if found:
            shown = [figures.Interval(arm, d.mean, d.t_low, d.t_high) for arm, d in found]
            picture = figures.differences(shown, f"difference of {title} to the control")
            alt = f"{title}, each arm minus its control, with Student’s 95 % interval; the table has the numbers."
            charts.append((f"{title}: arm minus control", alt, data_uri("image/svg+xml", picture)))
    return charts


def _samples(plan: Plan, group: Group, results: Sequence[Result]) -> Mapping[str, Shown]:
    """The first items of each arm that is done, from the first seed."""
    cell = next(c for c in plan.cells if c.train == group.train)
    done = {r.arm for r in results if r.cell == cell}
    drawn = {run.arm: read_samples(run, COLUMNS) for run in plan.of(cell) if run.arm in done}
    return {arm: items for arm, items in drawn.items() if items is not None}
