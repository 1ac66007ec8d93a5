"""Trials as tables: for the terminal and the page, and as CSV with everything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ldsaug_ray.domains import domain_of
from ldsaug_ray.search.objectives import sought_in
from ldsaug_ray.search.plan import Search
from ldsaug_ray.search.trials import State, Trial

STATES: Mapping[State, str] = {
    "finished": "finished",
    "stopped": "stopped on the way, by successive halving",
    "failed": "cannot work with their settings",
    "crashed": "crashed; the same command tries them again",
    "running": "were begun; the same command goes on with them",
}
TITLES = {  # of the regime of A
    "kept": "images of A",
    "parent_share": "parents’ share",
    "effective_neighbours": "effective neighbours",
}


def ranked(search: Search, trials: Sequence[Trial]) -> list[Trial]:
    """Of two objectives the front; finished ones by the (first) objective; then those that were stopped."""
    front = {t.key for t in search.best(trials)} if len(search.titles) > 1 else set()
    known = [
        (t.key not in front, t.state != "finished", v, t.number, t)
        for t in trials
        if (v := t.values(search.config.tune.objectives))
    ]
    return [t for *_, t in sorted(known, key=lambda x: x[:4])]


def rows_of(search: Search, trials: Sequence[Trial], most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the ranked trials: number, point, objectives, what they are made of, the regime of A."""
    objectives = search.config.tune.objectives
    found = ranked(search, trials)[:most]
    names = [d.name for d in search.space.dimensions]
    whole = sought_in([objective for objective in objectives if len(objective) == 1])  # told by the objective itself
    shown = {m.name: m.title for m in sought_in(objectives) if m not in whole} | TITLES
    titles = map(domain_of(search.config).words, shown.values())
    head = ["trial", *(n.partition(".")[2] for n in names), *search.titles, *titles, "seconds"]
    rows = []
    for trial in found:
        values = trial.values(objectives) or []
        rows.append(
            [
                f"{trial.number}{'' if trial.state == 'finished' else f' (stopped at {trial.step:,})'}",
                *(text_of(trial.point[n]) for n in names),
                *(f"{v:.5g}" for v in values),
                *(_measured(trial.measures.get(n)) for n in shown),
                f"{trial.seconds:,.0f}",
            ]
        )
    return head, rows


def _measured(value: float | None) -> str:
    """Four digits, and every one of a count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def trials_csv(search: Search, trials: Sequence[Trial]) -> str:
    """Every trial, in the order of starting, with all its measures."""
    names = [d.name for d in search.space.dimensions]
    # an objective that is one measure, as it is, has that measure's name
    measures = [n for n in dict.fromkeys(n for t in trials for n in t.measures) if n not in search.titles]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "key", "state", "step", *names, *search.titles, *measures, "seconds", "why"])
    for t in trials:
        values: Sequence[Any] = t.values(search.config.tune.objectives) or [""] * len(search.titles)
        numbers = [t.measures.get(n) for n in measures]
        point = [v if isinstance(v := t.point[n], str | float) else json.dumps(v) for n in names]  # every digit
        writer.writerow(
            [t.number, t.key, t.state, t.step, *point, *values, *numbers, t.seconds, " ".join(search.why(t).split())]
        )
    return out.getvalue()


def text_of(value: Any) -> str:
    """A value of a setting, short."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        return " ".join(f"{text_of(v)}" for v in value.values() if v is not None)
    return value if isinstance(value, str) else json.dumps(value)
