"""Points of a search for whoever runs its trials: the sampler's, those of crashed trials again; which trials go on."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from ldsaug_ray.config import Tune
from ldsaug_ray.errors import InputError, LdsaugError, error_named
from ldsaug_ray.search.objectives import objective_values
from ldsaug_ray.search.sampler import Sampler
from ldsaug_ray.search.space import Point
from ldsaug_ray.search.trials import Trial


class Keeper(Protocol):
    """Where a search keeps its trials."""

    def begin(self, point: Point) -> Trial:
        """A trial starts, or is tried again."""

    def evaluated(self, key: str, found: Mapping[str, Any]) -> None:
        """An evaluation of a running trial."""

    def end(self, key: str, *, stopped: bool = False, crashed: str = "") -> Trial:
        """A trial is over; what it came to was told."""


class SearchPoints:
    """As of `engines.base.Points`.

    Args:
        known: trials of an earlier attempt.
        asked: objectives, successive halving, failures to bear.
        deadline: of time.monotonic(), after which no trial starts.
    """

    def __init__(self, sampler: Sampler, keeper: Keeper, known: Sequence[Trial], asked: Tune, deadline: float | None):
        self._sampler, self._keeper, self._asked = sampler, keeper, asked
        self._deadline = math.inf if deadline is None else deadline
        self._again: list[Point] = []
        self._crashes: Counter[str] = Counter()
        self._running: dict[str, str] = {}
        self._stopped: set[str] = set()
        self.error: LdsaugError | None = None  # which ends the search
        self._halving = Halving(asked.asha.grace_steps, asked.asha.reduction_factor)
        for trial in known:
            for step, measures in trial.curve:
                with suppress(InputError):  # of these objectives it has no value
                    self._halving.goes_on(trial.key, step, objective_values(asked.objectives, measures)[0])

    @property
    def over(self) -> bool:
        """No trial is running that may crash and be given again, or time is up."""
        return self.error is not None or not self._running or time.monotonic() >= self._deadline

    def next(self, trial: str) -> Mapping[str, Any] | None:
        """Point and number of the next trial."""
        while self.error is None and time.monotonic() < self._deadline:
            point = self._again.pop() if self._again else self._sampler.ask()
            if point is None:
                return None
            begun = self._keeper.begin(point)
            if begun.state == "running":
                self._running[trial] = begun.key
                return {"point": dict(point), "number": begun.number}
            self._sampler.tell(begun)  # these values are not possible together
        return None

    def evaluated(self, trial: str, found: Mapping[str, Any]) -> bool:
        """An evaluation of a running trial; whether it goes on."""
        if (error := found.get("error")) is not None:
            self.error = self.error or error_named(*error)
        if self.error is not None:  # the trial stays as it was, and is tried again by the same command
            self._running.pop(trial, None)
            return False
        key = self._running[trial]
        self._keeper.evaluated(key, found)
        if found["over"] or self._halving.goes_on(key, found["step"], found["value"]):
            return True
        self._stopped.add(trial)
        return False

    def end(self, trial: str, *, crashed: str = "") -> None:
        """A trial is over, or crashed; Ray Tune says so twice where its worker died between two trials."""
        if trial not in self._running or self.error is not None:
            return
        ended = self._keeper.end(self._running.pop(trial), stopped=trial in self._stopped, crashed=crashed)
        if ended.state == "crashed" and self._crashes[ended.key] < self._asked.max_failures:
            self._crashes[ended.key] += 1
            self._again.append(ended.point)
        else:
            self._sampler.tell(ended)


class Halving:
    """Asynchronous successive halving (Li et al. 2020, algorithm 2): at each rung the better share goes on.

    A trial is judged once at a rung, by those that came before it, also of an earlier attempt.

    Args:
        grace: steps to the first rung; none: every trial goes on.
        factor: one of so many goes on; rungs lie this factor apart.
    """

    def __init__(self, grace: int | None, factor: int):
        self._grace, self._factor = grace, factor
        self._seen: defaultdict[int, dict[str, float]] = defaultdict(dict)  # rung -> trial -> value

    def goes_on(self, key: str, step: int, value: float) -> bool:
        """Whether a trial with this value, less being better, at this step goes on; one without a value does."""
        if self._grace is None or step < self._grace or not math.isfinite(value):
            return True
        rung = self._grace
        while rung * self._factor <= step:
            rung *= self._factor
        before = self._seen[rung]
        if key in before:
            return True
        worst = np.percentile(list(before.values()), 100 / self._factor) if before else math.inf
        before[key] = value
        return bool(value <= worst)
