"""Which trials start, go on and are given again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ldsaug_ray.config import Tune
from ldsaug_ray.errors import StorageError
from ldsaug_ray.search.points import Halving, SearchPoints
from ldsaug_ray.search.space import Point
from ldsaug_ray.search.trials import Trial


class Keeper:
    """Keeps trials in memory; those with a negative x are not possible."""

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}

    def begin(self, point: Point) -> Trial:
        trial = Trial(point, len(self.trials) + 1, "i", state="failed" if point["x"] < 0 else "running")
        self.trials[trial.key] = trial
        return trial

    def evaluated(self, key: str, found: Mapping[str, Any]) -> None:
        self.trials[key] = replace(self.trials[key], step=found["step"])

    def end(self, key: str, *, stopped: bool = False, crashed: str = "") -> Trial:
        state = "crashed" if crashed else "stopped" if stopped else "finished"
        self.trials[key] = replace(self.trials[key], state=state)
        return self.trials[key]


class Sampler:
    def __init__(self, xs: list[int]):
        self.left, self.heard = xs, list[tuple[Any, str]]()

    @property
    def has_more(self) -> bool:
        return bool(self.left)

    def ask(self) -> Point | None:
        return {"x": self.left.pop(0)} if self.left else None

    def tell(self, trial: Trial) -> None:
        self.heard.append((trial.point["x"], trial.state))


def points(xs: list[int], deadline: float | None = None, known: tuple[Trial, ...] = (), **asked: Any) -> SearchPoints:
    return SearchPoints(Sampler(xs), Keeper(), known, Tune.model_validate(asked), deadline)


def found(step: int, value: float, over: bool = False) -> dict[str, Any]:
    return {"step": step, "value": value, "over": over, "measures": {}, "failed": "", "seconds": 1.0}


def test_points_that_are_not_possible_are_told_and_passed_over():
    some = points([-1, 5])
    assert some.next("a") == {"point": {"x": 5}, "number": 2}
    assert some._sampler.heard == [(-1, "failed")]
    assert some.next("b") is None
    assert not some.over  # a may crash
    some.evaluated("a", found(1, 0.5, over=True))
    some.end("a")
    assert some.next("b") is None
    assert some.over
    assert some._sampler.heard == [(-1, "failed"), (5, "finished")]


def test_a_crashed_trial_is_given_again_as_often_as_asked():
    some = points([5], max_failures=1)
    some.next("a")
    some.end("a", crashed="boom")
    some.end("a", crashed="boom")  # Ray Tune says so twice
    assert some.next("b")["point"] == {"x": 5}
    some.end("b", crashed="boom")
    assert some.next("c") is None
    assert some.over
    assert some._sampler.heard == [(5, "crashed")]


def test_what_is_no_matter_of_settings_ends_the_search():
    some = points([5, 6, 7])
    some.next("a")
    some.next("b")
    assert not some.evaluated("a", {**found(0, math.inf, over=True), "error": ("StorageError", "the disk is full")})
    some.end("a")
    assert some.next("c") is None
    assert some.over
    assert not some.evaluated("b", found(3, 0.1))  # which is stopped, and goes on another time
    assert type(some.error) is StorageError
    assert str(some.error) == "the disk is full"
    assert {t.state for t in some._keeper.trials.values()} == {"running"}
    assert some._sampler.heard == []


def test_no_trial_starts_after_the_deadline():
    some = points([5, 6], deadline=time.monotonic() - 1)
    assert some.next("a") is None
    assert some.over


def test_a_trial_that_is_stopped_ends_as_stopped():
    some = points([1, 2], asha={"grace_steps": 2, "reduction_factor": 2})
    some.next("a")
    assert some.evaluated("a", found(2, 1.0))
    some.next("b")
    assert not some.evaluated("b", found(2, 3.0))
    some.end("b")
    assert some._keeper.trials[Trial({"x": 2}, 0, "").key].state == "stopped"


def test_trials_of_an_earlier_attempt_count():
    known = (Trial({"x": 9}, 1, "i", curve=((2, {"frechet": 1.0}),)),)
    some = points([1], known=known, asha={"grace_steps": 2, "reduction_factor": 2})
    some.next("a")
    assert not some.evaluated("a", found(2, 2.0))


@pytest.mark.parametrize("seed", range(5))
def test_halving_decides_as_ray_tune_does(seed):
    from ray.tune.schedulers.async_hyperband import _Bracket

    rng = np.random.default_rng(seed)
    grace, factor = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    ours = Halving(grace, factor)
    theirs = _Bracket(grace, 10**6, factor, 0)

    class As:
        def __init__(self, trial_id: str):
            self.trial_id = trial_id

    for n in range(40):
        for step in [grace * factor**k for k in range(int(rng.integers(1, 5)))]:  # a search evaluates at rungs
            value = float(rng.normal())
            want = theirs.on_result(As(str(n)), step, -value) != "STOP"
            assert ours.goes_on(str(n), step, value) == want
            if not want:
                break


def test_without_halving_or_without_a_value_a_trial_goes_on():
    assert Halving(None, 3).goes_on("a", 100, 1e9)
    halving = Halving(1, 2)
    assert halving.goes_on("a", 1, 0.0)
    assert halving.goes_on("b", 1, math.inf)
    assert halving.goes_on("b", 1, math.nan)
