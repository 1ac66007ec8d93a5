"""Trainings on Ray Train: ranks that start again when one of them dies, and stay for the next training where nobody
else needs what they reserve: to start a process and to import torch takes longer than a small training.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import ray

from ldsaug_ray.engines.base import Asked, Training
from ldsaug_ray.engines.ray.meters import Meters
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.engines.signals import kept_back
from ldsaug_ray.engines.threads import give_back_memory

if TYPE_CHECKING:
    from ldsaug_ray.engines.ray.trainer import TrainRun

LOOK_SECONDS = 0.2


class KeptRanks:
    """Ranks of trainings that want the same; they start at once."""

    def __init__(self, world: int, pool: Pool, max_failures: int, *, reserves: bool, search: Any = None):
        """
        Args:
            reserves: CPUs. Not on a Ray where nothing else runs while they train.
            search: a monitor that may ask trainings to stop, too; none: these are no trial's.
        """
        from ldsaug_ray.engines.ray.trainer import TrainRun

        self.key = self.key_of(world, pool, max_failures)
        each = {"CPU": pool.cpus * reserves, "GPU": pool.gpus, "memory": pool.memory or 0.0}
        each = {name: n for name, n in each.items() if n} or {"memory": 1.0}  # Ray wants something: a byte
        self._search, self._trained = search, 0
        self._run: TrainRun = TrainRun(_serve, world, each, max_failures, cleaned=search is not None)

    @staticmethod
    def key_of(world: int, pool: Pool, max_failures: int) -> tuple[object, ...]:
        """What makes ranks fit a training."""
        return world, pool.cpus, pool.gpus, pool.memory, max_failures

    @property
    def over(self) -> bool:
        """Whether they serve no more."""
        return self._run.over

    def close(self) -> None:
        """End them."""
        self._run.close()

    def train(self, training: Training, shown: Callable[[int, str], None]) -> None:
        """As of `Engine.train`.

        Raises:
            SystemExit: the search asked to stop, and the ranks have saved.
        """
        self._trained += 1
        begun, begins, never = False, False, Event()
        groups: list[Any] = []  # of ranks: another each time that one has died
        with kept_back(lambda: begun) as told_to_stop:  # a signal that was kept back acts as the block is left
            while not self._run.over:
                try:
                    if (group := self._run.group()) is not None:
                        if group not in groups:
                            groups.append(group)  # before a rank can die of what it is asked
                            begins = False
                        if not begins:
                            _asked(group, _begin, self._trained, training)
                            begins = True
                        if told_to_stop() or (self._search and ray.get(self._search.stopping.remote(), timeout=10)):
                            _asked(group, _stop)
                        states = _asked(group, _state)
                        if states[0].told is not None:
                            begun = True
                            shown(*states[0].told)
                        if all(state.done == self._trained for state in states):
                            break
                except ray.exceptions.RayTaskError:
                    raise
                except (ray.exceptions.RayError, ValueError):
                    pass  # a rank that dies is the controller's to deal with; a group that it gave up is a ValueError
                never.wait(LOOK_SECONDS)
            else:
                raise self._why()
        if len(groups) > 1:
            self.close()  # for the next training no death counts
        if self._search is not None and ray.get(self._search.stopping.remote()):
            raise SystemExit

    def _why(self) -> Exception:
        from ldsaug_ray.engines.ray.trainer import meant_for_user

        assert self._run.failed is not None  # ranks that nobody closes end by that alone
        return meant_for_user(self._run.failed) or self._run.failed


def _asked(group: Any, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the function gives in each rank's process."""
    return ray.get(group.execute_async(function, *arguments), timeout=10)


class _State(NamedTuple):
    told: tuple[int, str] | None
    done: int


class _Desk:
    """Of a rank's process: what the driver leaves for the rank, and the rank for the driver."""

    trainings: SimpleQueue[tuple[int, Training]] = SimpleQueue()
    begun = done = 0  # trainings, by number
    told: tuple[int, str] | None = None
    stops = False


def _begin(number: int, training: Training) -> None:
    if number != _Desk.begun:  # or the driver asks again
        _Desk.begun, _Desk.told, _Desk.stops = number, None, False
        _Desk.trainings.put((number, training))


def _stop() -> None:
    _Desk.stops = True


def _state() -> _State:
    return _State(_Desk.told, _Desk.done)


def _serve() -> None:
    """A rank's whole life: one training after another. What one raises ends the rank, and its attempt."""
    import ldsaug_ray.models.training.trainer  # noqa: F401  what they compute with, while the driver has nothing for it yet

    while True:
        number, training = _Desk.trainings.get()
        training.work(_Rank(training))
        del training
        gc.collect()
        give_back_memory()  # others compute until the next
        _Desk.done = number


class _Rank:
    """As of `base.Rank`."""

    def __init__(self, training: Training):
        import ray.train

        context = ray.train.get_context()
        self.number, self.world = context.get_world_rank(), context.get_world_size()
        self.device = "cpu"
        if training.pool.gpus:
            from ray.train.torch import get_device

            self.device = str(get_device())
        self.count = Meters(training.stage).count
        self._leaving: list[str] = []

    def tell(self, step: int, note: str) -> None:
        """Left for the driver, which looks now and then."""
        _Desk.told = (step, note)

    def meet(self) -> None:
        """By an actor of Ray Train's."""
        self.agree(None)

    def agree(self, value: Any) -> Any:
        """Likewise; one rank has nobody to ask."""
        from ray.train.collective import broadcast_from_rank_zero

        return broadcast_from_rank_zero(value) if self.world > 1 else value

    def asked(self) -> Asked | None:
        """By the driver; or, to save, since a node with a rank on it is about to be taken away."""
        import ray.train

        if self.agree(_Desk.stops):
            return "stop"
        notice = ray.train.get_preemption_info()
        leaving = [] if notice is None else notice.preempted_node_ids
        if leaving == self._leaving:
            return None
        self._leaving = leaving
        return "save"

    def stream(
        self,
        make: Callable[..., Callable[[pa.Table], Iterator[pa.Table]]],
        arguments: Sequence[Any],
        tasks: Sequence[Mapping[str, int]],
    ) -> Iterator[pa.Table]:
        """Made by a thread, which is one table ahead."""
        work = make(*arguments)
        tables = chain.from_iterable(work(pa.Table.from_pylist([dict(task)])) for task in tasks)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(next, tables, None)
            while (table := ahead.result()) is not None:
                ahead = reader.submit(next, tables, None)
                yield table
