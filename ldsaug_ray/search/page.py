"""The page of a search: what won, the objective over σ and τ with the regime behind it, the front, the best samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.stats import spearmanr

import ldsaug_ray
from ldsaug_ray.common.secrets import without_passwords
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains import domain_of
from ldsaug_ray.experiment.results import first_drawn
from ldsaug_ray.metrics import OF_A, Evaluated
from ldsaug_ray.report import figures
from ldsaug_ray.report._scores import data_uri
from ldsaug_ray.report.page import on_page, templates
from ldsaug_ray.report.sheets import COLUMNS
from ldsaug_ray.search.objectives import Objectives, measures_in, measures_of_run
from ldsaug_ray.search.plan import Search
from ldsaug_ray.search.space import Dimension
from ldsaug_ray.search.tables import STATES, TITLES, ranked, rows_of, text_of
from ldsaug_ray.search.trials import State, Trial

CELLS = 8  # rows or columns that a range of any values is cut into
SHOWN = 4  # best trials that are shown with samples; of a front the others without
FEWEST = 8  # trials from which a rank correlation is told
MARKS: Mapping[State, tuple[str, str]] = {  # of cells without a number
    "finished": ("?", "finished without a result"),
    "stopped": ("…", "stopped on the way"),
    "failed": ("×", "cannot work"),
}
_REGIME = ("parent_share", "effective_neighbours", "kept")

Value = Callable[[Trial], float | None]


def search_page(search: Search, trials: Sequence[Trial], table: str) -> str:
    """The page as HTML text."""
    best = search.best(trials)
    first = [t for t in ranked(search, trials) if t.state == "finished"][:SHOWN]
    shown = best if len(search.titles) > 1 else first
    return (
        templates(domain_of(search.config).words)
        .get_template("search/page.html.j2")
        .render(
            name=Location.of(search.root).name,
            version=ldsaug_ray.__version__,
            titles=search.titles,
            findings=findings(search, trials),
            table=rows_of(search, trials),
            states=[(f"{n:,}", text) for s, text in STATES.items() if (n := sum(t.state == s for t in trials))],
            total=len(trials),
            charts=_charts(search, trials),
            best=[
                (t.number, search.commands(t), search.result_of(t), _samples(search, t) if n < SHOWN else None)
                for n, t in enumerate(shown)
            ],
            failures=[(t, why) for t in trials if (why := search.why(t))],
            space=[(d.name, d.text) for d in search.space.dimensions],
            pixels=getattr(search.config.data, "resolution", 64) < 64,
            settings=yaml.safe_dump(without_passwords(search.config.dump()), sort_keys=False, allow_unicode=True),
            csv=data_uri("text/csv", table.encode()),
        )
    )


def findings(search: Search, trials: Sequence[Trial]) -> list[str]:
    """What won, by how much, what the measures of A would have said, and what this does not show."""
    objectives = search.config.tune.objectives
    known = [(v, t) for t in trials if t.state == "finished" and (v := t.values(objectives))]
    if not known:
        return ["No trial has come to a result yet."]
    sentences = []
    best = search.best(trials)
    if len(objectives) == 1:
        values = np.array([v[0] for v, _ in known])
        sentences.append(
            f"Trial {best[0].number} is the best of {len(known)} finished ones: {search.result_of(best[0])}; their "
            f"median is {np.median(values):.5g}, the worst {values.max():.5g}."
        )
    else:
        numbers = ", ".join(str(t.number) for t in best)
        sentences.append(
            f"No other trial beats {'these' if len(best) > 1 else 'this one'} in both objectives: {numbers}."
        )
    before = _before(search)
    if before:
        sentences.append(f"The model before fine-tuning has {before}.")
    if search.trains and len(known) >= FEWEST:
        first = [v[0] for v, _ in known]
        for measure in OF_A:
            proxy = [t.measures.get(measure.name) for _, t in known]
            if None in proxy or len(set(proxy)) < 2 or len(set(first)) < 2:
                continue
            rank = float(spearmanr(proxy, first).statistic)
            sentences.append(f"{measure.title} and {search.titles[0]}, rank correlation over these trials: {rank:.2f}.")
    if search.trains:
        sentences.append(
            "Each number is of one fine-tuning and one draw of images: trials that lie close may differ by chance "
            "alone. Repeat the best and the settings as they stand with several seeds before you believe a difference."
        )
    return sentences


def _before(search: Search) -> str:
    """What the objectives are made of, of the model before fine-tuning."""
    file = Location.of(search.root) / "baseline/evaluate/metrics.json"
    if not search.trains or not file.exists():
        return ""
    measures = measures_of_run(Evaluated.read(file), "baseline")
    names = measures_in(search.config.tune.objectives)
    return ", ".join(f"{n} {v:.5g}" for n in names if (v := measures.get(n)) is not None)


def _charts(search: Search, trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    """Title, alt text and picture of each figure."""
    objectives = search.config.tune.objectives
    charts = []
    plane = _plane(search)
    if plane is not None:
        across, up = plane
        lowest = _lowest(across, up, trials, objectives)
        empty = {(_place(up, t), _place(across, t)): MARKS[t.state][0] for t in trials if t.is_over}
        used = [mark for mark in MARKS.values() if mark[0] in {empty[p] for p in empty.keys() - lowest.keys()}]
        legend = "".join(f"; {sign} {text}" for sign, text in used)
        maps: list[tuple[str, Value]] = [
            (title, lambda t, n=n: (t.values(objectives) or [])[n])  # type: ignore[misc]
            for n, title in enumerate(search.titles)
        ]
        maps += [(TITLES[n], lambda t, n=n: t.measures.get(n)) for n in _REGIME]  # type: ignore[misc]
        for title, value in maps:
            cells = np.full((len(_names(up)), len(_names(across))), math.nan)
            for place, trial in lowest.items():
                if (found := value(trial)) is not None:
                    cells[place] = found
            if not np.isfinite(cells).any():
                continue
            picture = figures.heat_map(cells, _names(across), _names(up), across.name, up.name, title, empty)
            alt = f"{title} over {across.name} (across) and {up.name} (up); the table has the numbers."
            charts.append((f"{title}, of the best trial in each cell{legend}", alt, data_uri("image/svg+xml", picture)))
    known = [(v, t) for t in trials if t.state == "finished" and (v := t.values(objectives))]
    best = {t.key for t in search.best(trials)}
    if len(objectives) == 2 and known:
        marks = [figures.Point(v[0], v[1], f"{t.number}", t.key in best) for v, t in known]
        picture = figures.points(marks, *search.titles, joined=True)
        alt = f"{search.titles[0]} against {search.titles[1]}; the front is joined and has its trials' numbers."
        charts.append(("The front", alt, data_uri("image/svg+xml", picture)))
    elif len(known) > 1:
        marks = [figures.Point(float(t.number), v[0], f"{t.number}", t.key in best) for v, t in known]
        picture = figures.points(marks, "trial", search.titles[0])
        alt = f"{search.titles[0]} of each trial in the order of starting; the best is marked."
        charts.append(("Trial by trial", alt, data_uri("image/svg+xml", picture)))
    return charts


def _plane(search: Search) -> tuple[Dimension, Dimension] | None:
    """σ across and τ up, or the first two settings."""
    dimensions = search.space.dimensions
    if len(dimensions) < 2:
        return None
    across = next((d for d in dimensions if d.name.startswith("score.sigma")), dimensions[0])
    rest = [d for d in dimensions if d is not across]
    return across, next((d for d in rest if d.name.startswith("select.")), rest[0])


def _edges(d: Dimension) -> NDArray[np.float64]:
    return np.geomspace(d.low, d.high, CELLS + 1) if d.log else np.linspace(d.low, d.high, CELLS + 1)


def _names(d: Dimension) -> list[str]:
    if d.values is not None:
        return [f"{v:.3g}" if isinstance(v, float) else text_of(v) for v in d.values]
    return [f"{a:.3g}–{b:.3g}" for a, b in pairwise(_edges(d))]


def _place(d: Dimension, trial: Trial) -> int:
    value = trial.point[d.name]
    if d.values is not None:
        return d.values.index(value)
    return int(np.clip(np.searchsorted(_edges(d), value, side="right") - 1, 0, CELLS - 1))


def _lowest(
    across: Dimension, up: Dimension, trials: Sequence[Trial], objectives: Objectives
) -> dict[tuple[int, int], Trial]:
    """The finished trial with the least (first) objective in each cell, by row and column."""
    found: dict[tuple[int, int], tuple[float, Trial]] = {}
    for trial in trials:
        if trial.state == "finished" and (values := trial.values(objectives)) is not None:
            place = (_place(up, trial), _place(across, trial))
            if place not in found or values[0] < found[place][0]:
                found[place] = (values[0], trial)
    return {place: trial for place, (_, trial) in found.items()}


def _samples(search: Search, trial: Trial) -> str | None:
    """What the trial's model draws, or nothing where it has none."""
    if not search.trains:
        return None
    run = Location.of(search.trial_config(trial.point).run_dir)
    items = first_drawn(run, "finetune", 2 * COLUMNS, search.config.domain)
    return None if items is None else on_page(items)
