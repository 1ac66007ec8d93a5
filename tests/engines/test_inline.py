"""The engine in this process: what it is asked for happens here, and the process is left as it was."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, CpuWorkers, Ranks, Workers
from ldsaug_ray.engines import engine_of
from ldsaug_ray.engines.base import Rank, Training, Trials, UnitWork
from ldsaug_ray.engines.inline import InlineEngine
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import ConfigError, InputError, ResourceError
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[InlineEngine]:
    settings = {"run_dir": str(tmp_path / "run"), "data": {"source": "sklearn:digits"}, "engine": "inline"}
    with engine_of(Config.model_validate(settings)) as entered:
        assert isinstance(entered, InlineEngine)
        yield entered


def pool(cpus: float = 1.0) -> Pool:
    return Pool(1, cpus, 0.0, None)


class Squares:
    """Writes the squares of a unit's numbers; notes the process and its threads."""

    def __init__(self, seen: list[tuple[int, int]], out: Location):
        self.seen, self.out = seen, out

    def __call__(self, unit: int, table: pa.Table) -> UnitResult:
        numbers = table["x"].to_numpy()
        if (numbers < 0).any():
            raise InputError(f"unit {unit} has a negative number")
        self.seen.append((os.getpid(), torch.get_num_threads()))
        (self.out / f"squares/{unit}.parquet").write_table(pa.table({"y": numbers**2}))
        return UnitResult(unit, Counts(len(numbers), len(numbers)), unit, (f"squares/{unit}.parquet",), (len(numbers),))


def units(seen: list[tuple[int, int]], out: Location, tables: Mapping[int, pa.Table], cpus: float) -> UnitWork:
    return UnitWork("score", tables, pool(cpus), Squares, (seen, out), lambda unit: (out, unit))


def test_units_are_done_here_and_marked(engine, tmp_path):
    out, seen = Location.of(tmp_path), list[tuple[int, int]]()
    before = torch.get_num_threads()
    tables = {n: pa.table({"x": [n, n + 1]}) for n in range(3)}
    answers = list(engine.answers(units(seen, out, tables, 3.0)))
    assert [result.unit for result, _ in answers] == [0, 1, 2]
    assert (tmp_path / "squares/2.parquet").exists()
    assert seen == [(os.getpid(), 3)] * 3  # this process, with the threads that the worker reserves
    assert torch.get_num_threads() == before
    marked = RunDir(out).finished_units("score")
    assert {n: u.files for n, u in marked.items()} == {n: (f"squares/{n}.parquet",) for n in range(3)}
    assert all(u.extra["seconds"] >= 0 for u in marked.values())


def test_what_a_worker_raises_comes_as_it_is_and_what_was_done_stays(engine, tmp_path):
    out, seen = Location.of(tmp_path), list[tuple[int, int]]()
    tables = {0: pa.table({"x": [1]}), 1: pa.table({"x": [-1]}), 2: pa.table({"x": [2]})}
    before = torch.get_num_threads()
    with pytest.raises(InputError, match="unit 1 has a negative number"):
        list(engine.answers(units(seen, out, tables, 2.0)))
    assert list(RunDir(out).finished_units("score")) == [0]
    assert torch.get_num_threads() == before


class Hungry:
    def __call__(self, unit: int, table: pa.Table) -> UnitResult:
        np.empty(2**62, np.uint8)
        raise AssertionError("no machine has as much")


def test_too_little_memory_is_a_resource_not_an_input(engine, tmp_path):
    out = Location.of(tmp_path)
    work = UnitWork("encode", {0: pa.table({"x": [1]})}, pool(), Hungry, (), lambda unit: (out, unit))
    with pytest.raises(ResourceError, match=r"^encode: out of memory \(.*\); lower encode.batch_size"):
        list(engine.answers(work))


def test_a_gpu_out_of_memory_is_told_so(engine, tmp_path):
    class Full:
        def __call__(self, unit: int, table: pa.Table) -> UnitResult:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    out = Location.of(tmp_path)
    work = UnitWork("decode", {0: pa.table({"x": [1]})}, pool(), Full, (), lambda unit: (out, unit))
    with pytest.raises(ResourceError, match=r"decode: out of memory \(CUDA out of memory. Tried to .* 2.00 GiB.\)"):
        list(engine.answers(work))


def test_one_worker_whatever_number_is_asked_for(engine):
    console = Console(file=io.StringIO())
    assert engine.pool(CpuWorkers(count=64), "score", console).count == 1
    with pytest.raises(ResourceError, match=r"score.workers asks for 1 × \(100000 CPU\), but the cluster has"):
        engine.pool(Workers(cpus=100_000, gpus=0), "score", console)


class Part:
    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers

    def above(self, limit: int) -> int:
        return int((self.numbers > limit).sum())


def test_shared_held_and_mapped(engine):
    numbers = np.arange(10)
    shared = engine.share(numbers)
    assert shared is numbers  # no copy
    with engine.hold(Part, [(numbers[:5],), (numbers[5:],)], pool(), 1) as held:
        assert held.ask("above", 3) == [1, 5]
    assert list(engine.each(lambda a, b: a + b, 10, [1, 2])) == [11, 12]


def test_a_training_has_one_rank(engine):
    seen: list[Any] = []

    def work(rank: Rank) -> None:
        def ahead(factor: int) -> Any:
            return lambda task: iter([pa.table({"y": [factor * task["first"][0].as_py()]})])

        found = [t["y"][0].as_py() for t in rank.stream(ahead, (3,), [{"first": 1}, {"first": 2}])]
        rank.tell(7, "loss 1")
        rank.meet()
        seen.append((rank.number, rank.world, rank.device, found))

    training = Training("train", work, 1, pool(), 3)
    engine.train(training, lambda step, note: seen.append((step, note)))
    assert seen == [(7, "loss 1"), (0, 1, "cpu", [3, 6])]
    console = Console(file=io.StringIO())
    assert engine.pool(Ranks(count=1, gpus=0), "train", console).count == 1
    with pytest.raises(ConfigError, match=r"train.workers.count = 2: engine: inline trains with one worker"):
        engine.pool(Ranks(count=2, gpus=0), "train", console)


class Countdown:
    """A trial of so many evaluations; crashes where it is asked for 13."""

    def __init__(self, left: int):
        self.left, self.closed = left, False

    def step(self) -> Mapping[str, Any]:
        if self.left == 13:
            raise RuntimeError("unlucky")
        self.left -= 1
        return {"left": self.left, "over": self.left == 0}

    def close(self) -> None:
        self.closed = True


class Listed:
    def __init__(self, asked: list[int]):
        self.left, self.heard, self.over = asked, list[Any](), True

    def next(self, trial: str) -> Mapping[str, Any] | None:
        return {"n": self.left.pop(0)} if self.left else None

    def evaluated(self, trial: str, found: Mapping[str, Any]) -> bool:
        self.heard.append((trial, found["left"]))
        return found["left"] != 5  # these are stopped

    def end(self, trial: str, *, crashed: str = "") -> None:
        self.heard.append((trial, crashed or "over"))


def test_trials_one_after_another_and_a_crash_is_one_trials_matter(engine):
    made: list[Countdown] = []

    def make(asked: Mapping[str, Any]) -> Countdown:
        made.append(Countdown(asked["n"]))
        return made[-1]

    points = Listed([2, 13, 7])
    engine.trials(Trials(points, lambda: make, (), 4, False))
    crash = ("1", "RuntimeError: unlucky")
    assert points.heard == [("0", 1), ("0", 0), ("0", "over"), crash, ("2", 6), ("2", 5), ("2", "over")]
    assert all(trial.closed for trial in made)
