"""The crew of actors that does units: kept from stage to stage, grown while it works, and gone when it is dismissed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from ldsaug_ray.common.storage import Location
from ldsaug_ray.engines.base import Trials, UnitWork
from ldsaug_ray.engines.ray.units import Crew
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import Counts, UnitResult

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


class Pid:
    """Says who did a unit, once as many as `wanted` are at work."""

    def __init__(self, folder: Path, wanted: int = 1):
        self.folder, self.wanted = folder, wanted

    def __call__(self, unit: int, given: pa.Table) -> UnitResult:
        (self.folder / f"{os.getpid()}.pid").touch()
        until = time.monotonic() + 60
        while len(list(self.folder.glob("*.pid"))) < self.wanted:
            assert time.monotonic() < until, "nobody else came"
            time.sleep(0.05)
        return UnitResult(unit, Counts(1, 1), given["n"][0].as_py(), extra={"pid": os.getpid()})


def doubled(table: pa.Table) -> pa.Table:
    if table["n"][0].as_py() == 13:
        raise InputError("13 cannot be read")
    return pa.table({"n": [2 * table["n"][0].as_py()]})


@pytest.fixture
def crew() -> Iterator[Crew]:
    this = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(this)  # actors do not see the tests
    made = Crew()
    yield made
    made.dismiss()
    ray.cloudpickle.unregister_pickle_by_value(this)


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., UnitWork]:
    class In:
        def __call__(self, unit: int) -> tuple[Location, int]:
            return Location.of(tmp_path), unit

    def of(numbers: list[int], workers: int = 1, wanted: int = 1) -> UnitWork:
        tables = {unit: pa.table({"n": [n]}) for unit, n in enumerate(numbers)}
        return UnitWork("nothing", tables, Pool(workers, 1, 0, None), Pid, (tmp_path, wanted), In(), doubled)

    return of


def pids(found: list[tuple[UnitResult, float]]) -> set[int]:
    return {result.extra["pid"] for result, _ in found}


def all_free() -> bool:
    until = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    return ray.available_resources().get("CPU", 0) == 2


def test_the_next_stage_has_the_same_processes_until_they_are_dismissed(crew, work):
    first = list(crew.answers(work([1, 2, 3]), lambda: 1))
    assert {r.unit: r.digest for r, _ in first} == {0: 2, 1: 4, 2: 6}
    assert pids(list(crew.answers(work([5]), lambda: 1))) == pids(first)
    crew.dismiss()
    assert all_free()
    assert pids(list(crew.answers(work([5]), lambda: 1))).isdisjoint(pids(first))


def test_one_that_reserves_nothing_stays_while_others_have_the_processors(crew, work):
    free = Crew(reserves=False)
    try:
        first = pids(list(free.answers(work([1, 2]), lambda: 1)))
        everything = ray.remote(num_cpus=2)(lambda: os.getpid())
        assert ray.get(everything.remote(), timeout=60) not in first
        free.make_room()
        assert pids(list(free.answers(work([5]), lambda: 1))) == first
    finally:
        free.dismiss()


class Three:
    """Points 0, 1, 2; those of trials that crashed once more."""

    def __init__(self) -> None:
        self.left, self.running, self.found, self.crashed = [0, 1, 2], {}, {}, []

    def next(self, trial: str) -> dict[str, int] | None:
        if not self.left:
            return None
        self.running[trial] = self.left.pop(0)
        return {"n": self.running[trial]}

    @property
    def over(self) -> bool:
        return not self.running

    def evaluated(self, trial: str, found: dict[str, object]) -> bool:
        self.found.setdefault(self.running[trial], []).append(found)
        return True

    def end(self, trial: str, *, crashed: str = "") -> None:
        n = self.running.pop(trial)
        if crashed:
            self.crashed.append((n, crashed))
            self.left += [n] * (len(self.crashed) <= 2)


class Twice:
    """A trial with two evaluations; the first time, 1 kills its process, and 2 fails, which it goes on doing."""

    def __init__(self, folder: Path, asked: dict[str, int]):
        self.folder, self.n, self.step_ = folder, asked["n"], 0

    def step(self) -> dict[str, object]:
        if self.n == 1 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), 9)
        if self.n == 2:
            raise ValueError("two")
        self.step_ += 1
        return {"step": self.step_, "over": self.step_ == 2, "pid": os.getpid()}

    def close(self) -> None:
        (self.folder / f"closed-{self.n}").touch()


def test_trials_are_done_by_those_who_did_units(crew, work, tmp_path):
    """One after another, since a process that is there takes them all; who dies or fails is one trial's matter."""
    units = pids(list(crew.answers(work([1]), lambda: 1)))
    points = Three()
    crew.trials(Trials(points, lambda folder: partial(Twice, folder), (tmp_path,), 1, False))
    assert {n: [f["step"] for f in found] for n, found in points.found.items()} == {0: [1, 2], 1: [1, 2]}
    assert {f["pid"] for f in points.found[0]} == units
    assert points.crashed == [(1, "its process died"), (2, "ValueError: two"), (2, "ValueError: two")]
    assert {path.name for path in tmp_path.glob("closed-*")} == {"closed-0", "closed-1", "closed-2"}
    after = pids(list(crew.answers(work([5]), lambda: 1)))
    assert after == {f["pid"] for f in points.found[1]}  # a trial that fails ends no process


def test_more_trials_at_once_than_there_are_processors(crew, tmp_path):
    """None is given to a process that waits for a processor which another one has."""
    (tmp_path / "died").touch()
    points = Three()
    points.left = [0, 1, 3, 4, 5]
    crew.trials(Trials(points, lambda folder: partial(Twice, folder), (tmp_path,), 4, False))
    assert sorted(points.found) == [0, 1, 3, 4, 5]
    assert not points.crashed


def test_workers_that_come_in_the_middle_are_used(crew, work):
    sizes = iter([1])
    found = list(crew.answers(work(list(range(6)), wanted=2), lambda: next(sizes, 2)))
    assert len(pids(found)) == 2
    assert sorted(r.digest for r, _ in found) == [0, 2, 4, 6, 8, 10]


def test_one_that_comes_later_imports_while_others_do_the_units(crew, work):
    """And is there for a later stage where it keeps nobody else from a CPU."""
    free = Crew(reserves=False)
    try:
        first = pids(list(free.answers(work([1]), lambda: 1)))
        assert pids(list(free.answers(work([1, 2, 3]), lambda: 2))) == first
        assert len(pids(list(free.answers(work([1, 2], wanted=2), lambda: 2)))) == 2
        free.prepare(3)
        assert len(free._members) == 3
    finally:
        free.dismiss()
    first = pids(list(crew.answers(work([1]), lambda: 1)))
    assert pids(list(crew.answers(work([1, 2]), lambda: 2))) == first
    crew.prepare(3)
    assert len(crew._members) == 1


def test_one_that_died_between_two_stages_is_replaced(crew, work):
    first = list(crew.answers(work([1]), lambda: 1))
    os.kill(pids(first).pop(), 9)
    assert [r.digest for r, _ in crew.answers(work([4]), lambda: 1)] == [8]


@pytest.mark.parametrize("numbers", [[13, 1, 2], [1, 13, 2]])
def test_an_error_of_reading_ends_the_stage_and_frees_the_processors(crew, work, numbers):
    with pytest.raises(InputError, match="13 cannot be read"):
        list(crew.answers(work(numbers, workers=2), lambda: 2))
    crew.dismiss()
    assert all_free()
