"""Trials of a search as they are kept: `search/trials/KEY.json`, written when a trial starts, at each evaluation, and
when it ends.

A trial is known by its point alone, so that a search that goes on, or one with more trials, finds what was done. What
is made small is worked out from the measures when it is asked for. Trials that train have every measure: other
objectives need no other trials. Those without training have only what their objectives ask for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import yaml

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError, StorageError
from ldsaug_ray.search.objectives import Objectives, objective_values
from ldsaug_ray.search.space import Point

State = Literal["running", "finished", "stopped", "failed", "crashed"]

FOLDER = "search/trials"


def key_of(point: Point) -> str:
    """Twelve hexadecimal digits, of the names and values."""
    return fingerprint(dict(sorted(point.items())))[:12]


@dataclass(frozen=True)
class Trial:
    """A point, how its trial ended, and what it came to.

    Attributes:
        state: finished; stopped: by successive halving, at `step`; failed: these settings cannot work; crashed: by
            something that may not happen again.
        identity: fingerprint of everything that the numbers depend on; with another one the trial is done again.
        measures: what objectives are made of, and more.
        curve: (step of fine-tuning, measures) of the evaluations on the way.
        step: of fine-tuning that `measures` are of; 0 without training.
        why: of a failure, in words.
    """

    point: Point
    number: int
    identity: str
    state: State = "running"
    measures: Mapping[str, float | None] = field(default_factory=dict)
    curve: tuple[tuple[int, Mapping[str, float | None]], ...] = ()
    step: int = 0
    why: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Of its file and folder."""
        return key_of(self.point)

    @property
    def is_over(self) -> bool:
        """Whether the search need not try it again."""
        return self.state in ("finished", "stopped", "failed")

    def values(self, objectives: Objectives) -> list[float] | None:
        """What is made small; none where there are no numbers, or not those that these objectives ask for."""
        if self.state not in ("finished", "stopped"):
            return None
        try:
            return objective_values(objectives, self.measures)
        except InputError:
            return None

    def write(self, root: Location) -> None:
        """Keep it below the search's folder."""
        (root / f"{FOLDER}/{self.key}.json").write_json(asdict(self))

    @classmethod
    def read(cls, file: Location) -> Trial:
        """The trial in a file.

        Raises:
            StorageError: the file is not one that `write` wrote.
        """
        record = file.read_json()
        try:
            curve = tuple((int(step), dict(measures)) for step, measures in record["curve"])
            trial = cls(**{**record, "curve": curve})
            if trial.key != file.name.removesuffix(".json"):
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise StorageError(f"{file.uri}: not a trial of ldsaug_ray; delete it and run again") from None
        return trial


def read_trials(root: Location) -> list[Trial]:
    """Every trial that was started, in that order."""
    return sorted((Trial.read(file) for file in (root / FOLDER).files(".json")), key=lambda t: (t.number, t.key))


def front(trials: Sequence[Trial], objectives: Objectives) -> list[Trial]:
    """The finished trials that no other one beats in every objective: the Pareto front. Of one objective the best, the
    first of equals."""
    finished = [(t, v) for t in trials if t.state == "finished" and (v := t.values(objectives)) is not None]
    finished.sort(key=lambda found: (found[1], found[0].number))
    best: list[tuple[Trial, list[float]]] = []
    for trial, values in finished:
        if not any(_at_least_as_good(other, values) for _, other in best):
            best.append((trial, values))
    return [trial for trial, _ in best]


def _at_least_as_good(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def as_overrides(point: Point) -> list[str]:
    """`name=value` for the command line, as YAML reads it."""
    return [f"{name}={_plain(value)}" for name, value in point.items()]


def _plain(value: Any) -> str:
    with suppress(yaml.YAMLError):
        if isinstance(value, str) and yaml.safe_load(value) == value:
            return value
    return json.dumps(value, ensure_ascii=False)
