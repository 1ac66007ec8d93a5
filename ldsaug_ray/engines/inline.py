"""The engine that does everything in the calling process, one thing after another: no Ray, no other process, no copy.

For a debugger, a test, a notebook, a machine where Ray does not start. Results are those of any other engine; a worker
computes with the threads that it would have elsewhere (`workers.cpus`), since these can change a last bit.
"""

from __future__ import annotations

import os
from bdb import BdbQuit
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import Any

import pyarrow as pa
from rich.console import Console

from ldsaug_ray.config import Ranks, Workers
from ldsaug_ray.engines.base import Asked, Engine, MarkedWorker, Training, Trials, UnitWork
from ldsaug_ray.engines.resources import Node, Pool, pool_of
from ldsaug_ray.engines.signals import kept_back
from ldsaug_ray.engines.threads import limited_threads
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.run.directory import UnitResult


class InlineEngine(Engine):
    """Work in this process."""

    def __enter__(self) -> InlineEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check_place(self, name: str, uri: str) -> None:
        """This process sees all that it writes."""

    def nodes(self) -> list[Node]:
        """This machine."""
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{"CPU": float(cpus), "GPU": float(_gpus()), "memory": memory, "object_store_memory": memory / 2}]

    def pool(self, workers: Workers, stage: str, console: Console, *, limit: int | None = None) -> Pool:
        """One worker, whatever number is asked for.

        Raises:
            ConfigError: a training with several.
        """
        if isinstance(workers, Ranks) and workers.count not in ("auto", 1):
            raise ConfigError(
                f"{stage}.workers.count = {workers.count}: engine: inline trains with one worker, and several give "
                "another result: each draws noise of its own; set it to 1 or auto, or engine: ray"
            )
        return pool_of(workers.model_copy(update={"count": 1}), stage, self.nodes())

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value

    def answers(self, work: UnitWork) -> Generator[tuple[UnitResult, float]]:
        """One unit after another."""
        worker = MarkedWorker(work.make(*work.args), work.places, work.stage, _uncounted)
        with limited_threads(work.pool.threads):
            for unit, table in work.tables.items():
                yield worker(unit, table if work.read is None else work.read(table))

    def each(self, function: Callable[..., Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        """One after another."""
        return map(partial(function, shared), items)

    def hold(
        self, make: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], pool: Pool, threads: int
    ) -> AbstractContextManager[_Held]:
        return nullcontext(_Held([make(*given) for given in arguments]))

    def train(self, training: Training, shown: Callable[[int, str], None]) -> None:
        """One rank, here."""
        rank = _Rank("cuda" if training.pool.gpus else "cpu", shown)
        # the rank sets its own threads; afterwards they are as they were
        with limited_threads(training.pool.threads), kept_back(lambda: rank.begun) as rank.told_to_stop:
            training.work(rank)

    def trials(self, trials: Trials) -> None:
        """One after another; what a trial raises is told of it, and the others go on."""
        points = trials.points
        make = trials.make(*trials.args)
        for name in map(str, count()):
            if (asked := points.next(name)) is None:
                return
            steps = make(asked)
            try:
                goes_on = True
                while goes_on:
                    found = steps.step()
                    goes_on = points.evaluated(name, found) and not found["over"]
            except BdbQuit:
                raise
            except Exception as e:
                points.end(name, crashed=f"{type(e).__name__}: {e}")
            else:
                points.end(name)
            finally:
                steps.close()

    @contextmanager
    def lines(self, console: Console) -> Iterator[Callable[[str], None]]:
        """Printed at once."""
        yield partial(console.print, highlight=False, soft_wrap=True, style="dim")


class _Held:
    def __init__(self, objects: Sequence[Any]):
        self._objects = objects

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """One after another."""
        return [getattr(held, method)(*arguments) for held in self._objects]


class _Rank:
    """The only rank."""

    number, world = 0, 1
    begun = False

    def __init__(self, device: str, shown: Callable[[int, str], None]):
        self.device, self._shown = device, shown
        self.count = _uncounted
        self.told_to_stop: Callable[[], int] = lambda: 0

    def tell(self, step: int, note: str) -> None:
        """Shown at once."""
        self.begun = True
        self._shown(step, note)

    def meet(self) -> None:
        """There is nobody to wait for."""

    def agree(self, value: int | None) -> int | None:
        return value

    def asked(self) -> Asked | None:
        """By a signal to this process."""
        return "stop" if self.told_to_stop() else None

    def stream(
        self,
        make: Callable[..., Callable[[pa.Table], Iterator[pa.Table]]],
        arguments: Sequence[Any],
        tasks: Sequence[Mapping[str, int]],
    ) -> Iterator[pa.Table]:
        """Made when they are taken."""
        work = make(*arguments)
        for task in tasks:
            yield from work(pa.Table.from_pylist([dict(task)]))


def _uncounted(**_: float) -> None:
    """Monitoring is a cluster's."""


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
