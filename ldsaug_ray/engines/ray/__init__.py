"""The engine on a Ray cluster, or on a local Ray. The only room that imports Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from threading import Thread, current_thread
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ldsaug_ray.config import Config, Optimisation, Workers
from ldsaug_ray.engines.base import Engine, Training, Trials, UnitWork
from ldsaug_ray.engines.resources import Node, Pool, fitting, gpus_each, least, pool_of
from ldsaug_ray.errors import InputError, ResourceError
from ldsaug_ray.run.directory import UnitResult
from ldsaug_ray.run.mlflow_place import folder_is_temporary

if TYPE_CHECKING:
    from ldsaug_ray.engines.ray.training import KeptRanks
    from ldsaug_ray.engines.ray.units import Crew

_ASK_SECONDS = 30.0  # nodes are asked for again then: of another kind, if the first to come had GPUs


class RayEngine(Engine):
    """Work on Ray. In a process of Ray's own (a trial's) it is used as it comes, without being entered."""

    def __init__(self, config: Config, verbose: bool = False):
        super().__init__(config, verbose)
        self._session: ExitStack | None = None
        self._own = False  # whether nobody else has work on this Ray
        self._crew: Crew | None = None  # of units; made when there are some
        self._ranks: KeptRanks | None = None  # of trainings; likewise
        self._expected: tuple[int, Pool, int] | None = None  # such ranks, which are still to be started
        self._starting: Thread | None = None  # starts them
        self._wanted = 0  # actors of the last stage
        self._most = 0  # actors for which there was room, and nodes were looked at
        self._search: Any = None  # monitor of the search whose trials train

    def __enter__(self) -> RayEngine:
        from ldsaug_ray.engines.ray.session import ray_session

        with ExitStack() as session:
            self._own = session.enter_context(ray_session(self.config, verbose=self.verbose))
            self._session = session.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._dismiss()
            self._end_ranks()
            self._session.close()
            self._session = None

    def __getstate__(self) -> dict[str, Any]:
        ours = {"_session": None, "_own": False, "_crew": None, "_ranks": None, "_expected": None, "_starting": None}
        return {**self.__dict__, **ours}  # which are this process's

    def _dismiss(self) -> None:
        """End the processes that are kept warm for units: something else needs what they reserve."""
        if self._crew is not None:
            self._crew.dismiss()

    def _end_ranks(self) -> None:
        """End the processes that are kept for trainings."""
        self._started()
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None

    def _make_room(self) -> None:
        """Let something else have what the crew reserves."""
        if self._crew is not None:
            self._crew.make_room()

    def check_place(self, name: str, uri: str) -> None:
        """Every process of Ray must see it.

        Raises:
            InputError: it is in one process's memory, or in a folder that goes with a job.
        """
        if uri.startswith("memory:"):
            raise InputError(f"{name} {uri}: memory:// is seen by one process alone, and Ray has several")
        if folder_is_temporary() and "://" not in uri and not Path(uri).expanduser().is_absolute():
            raise InputError(
                f"{name} {uri}: a job's working folder goes with the job; give a whole path on storage that every "
                "node reaches, or a URI such as s3://bucket/run"
            )

    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def pool(self, workers: Workers, stage: str, console: Console, *, limit: int | None = None) -> Pool:
        """Workers of a stage, once the cluster has what is asked for: an autoscaler is told, and waited for.

        Raises:
            ResourceError: a local Ray has not what is asked for, or a cluster has it not after `ray.wait_minutes`.
            InputError: a node that came sees no run directory.
        """
        minutes = self.config.ray.wait_minutes if "RAY_ADDRESS" in os.environ else 0
        until = time.monotonic() + 60 * minutes
        waited, most = False, 0
        while True:
            nodes = self.nodes()
            if len(nodes) > most:  # they come: the limit is on waiting for the next
                most, until = len(nodes), time.monotonic() + 60 * minutes
            try:
                pool = pool_of(workers, stage, nodes, limit=limit)
            except ResourceError as e:
                if not minutes:
                    raise
                if time.monotonic() > until:
                    raise ResourceError(f"{e} (waited {minutes:g} minutes for more nodes: ray.wait_minutes)") from None
                if not waited:
                    text = f"{e}; waiting for nodes, {minutes:g} minutes at most (ray.wait_minutes)"
                    console.print(text, highlight=False)
                waited = True
                self._ask_for(workers, limit, min(_ASK_SECONDS, until - time.monotonic()))
                continue
            if waited:
                from ldsaug_ray.engines.ray.session import check_nodes

                check_nodes(self.config)
            return pool

    def _ask_for(self, workers: Workers, limit: int | None, seconds: float) -> None:
        """Let the cluster reserve what the workers will need: its autoscaler then starts nodes, and forgets it if we
        die."""
        from ray.util.placement_group import placement_group, remove_placement_group

        one = {"CPU": workers.cpus}
        if gpus := gpus_each(workers, self.nodes()):
            one["GPU"] = gpus
        if workers.memory_gb is not None:
            one["memory"] = int(workers.memory_gb * 1e9)
        self._dismiss()
        group = placement_group([one] * least(workers, limit))
        try:
            group.wait(max(1.0, seconds))
        finally:
            remove_placement_group(group)  # from here on the workers themselves ask

    def share(self, value: Any) -> Any:
        """An object of Ray's store, which workers of a node read without a copy."""
        import ray

        return ray.put(value)

    def answers(self, work: UnitWork) -> Generator[tuple[UnitResult, float]]:
        """Units by actors, which are kept for the next stage as long as this engine is entered. Where ranks start
        beside them, the last of them starts once a unit is done: a small stage does not need it."""
        ranks, self._expected = self._expected, None
        done = False

        def size() -> int:
            self._wanted = self._size(work.pool)
            return max(1, self._wanted - (ranks is not None and not done))

        try:
            if ranks is not None:
                self._starting = Thread(target=self._start_ranks, args=ranks, daemon=True)
                self._starting.start()
            with closing(self._warm().answers(work, size)) as answers:
                for answer in answers:
                    done = True
                    yield answer
        finally:
            if self._session is None:  # a trial's: another one may need the CPUs
                self._dismiss()

    def _warm(self) -> Crew:
        from ldsaug_ray.engines.ray.units import Crew

        self._crew = self._crew or Crew(reserves=not self._own)
        return self._crew

    def _size(self, pool: Pool) -> int:
        """Workers that a pool may have now; nodes that came see the run directory.

        Raises:
            InputError: one does not.
        """
        from ldsaug_ray.engines.ray.session import check_nodes

        size = max(pool.count, fitting(pool, self.nodes())) if pool.grows else pool.count
        if size > max(pool.count, self._most):
            self._most = size
            check_nodes(self.config)
        return size

    def each(self, function: Callable[..., Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        """Tasks of one CPU each."""
        from ldsaug_ray.engines.ray.held import each

        self._make_room()
        return each(function, shared, items)

    def hold(
        self, make: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], pool: Pool, threads: int
    ) -> AbstractContextManager[Any]:
        """An actor for each; one that dies with its node is started again on another."""
        from ldsaug_ray.engines.ray.held import held

        self._make_room()
        return held(make, arguments, pool, threads)

    def expect(self, stages: Collection[str]) -> None:
        """Ranks of the first training start once a stage before it has begun its work."""
        for name in stages:
            section = getattr(self.config, name, None)
            if isinstance(section, Optimisation) and section.steps and section.workers.count in ("auto", 1):
                with suppress(ResourceError):  # the stage tells it
                    pool = pool_of(section.workers, name, self.nodes())
                    self._expected = (1, pool, section.max_failures) if self._may_stay(pool) else None
                return

    def _may_stay(self, pool: Pool) -> bool:
        """Whether nobody else needs what ranks reserve."""
        return self._own and not pool.gpus and not pool.memory

    def _start_ranks(self, *of: Any) -> None:
        with suppress(Exception):  # the training asks for them again, and tells it
            self._ranks_of(*of)

    def _started(self) -> None:
        """Wait until ranks that start have been asked for."""
        if self._starting is not None and self._starting is not current_thread():
            self._starting.join()
            self._starting = None

    def _ranks_of(self, world: int, pool: Pool, max_failures: int) -> KeptRanks:
        from ldsaug_ray.engines.ray.training import KeptRanks

        self._started()
        self._expected = None
        key = KeptRanks.key_of(world, pool, max_failures)
        if self._ranks is not None and (self._ranks.over or self._ranks.key != key):
            self._end_ranks()
        if self._ranks is None:
            stay = self._may_stay(pool)
            self._ranks = KeptRanks(world, pool, max_failures, reserves=not stay, search=self._search)
        return self._ranks

    def train(self, training: Training, shown: Callable[[int, str], None]) -> None:
        """By ranks that are kept for the next training, where nobody else needs what they reserve."""
        import ray

        self._make_room()
        ranks, trained = self._ranks_of(training.world, training.pool, training.max_failures), False
        if self._search is not None:
            ray.get(self._search.count.remote(1))
        try:
            ranks.train(training, partial(self._shown, shown))
            trained = True
        finally:
            if not (trained and self._may_stay(training.pool)):
                self._end_ranks()
            if self._search is not None:  # last: the search ends when it hears of it
                self._search.count.remote(-1)

    def _shown(self, shown: Callable[[int, str], None], step: int, note: str) -> None:
        """Show it; the crew may prepare for the next stage now that ranks have imported what they need."""
        if self._crew is not None:
            self._crew.prepare(self._wanted)
        shown(step, note)

    def trials(self, trials: Trials) -> None:
        """By Ray Tune; by the crew, which is warm, where they run no stages."""
        if not trials.stages:
            self._warm().trials(trials)
            return
        from ldsaug_ray.engines.ray.beside import Monitor, beside_driver
        from ldsaug_ray.engines.ray.trials import run_trials

        self._dismiss()
        self._end_ranks()
        self._search = beside_driver(Monitor)
        try:
            run_trials(trials, self.verbose, self._search)
        finally:
            self._search = None

    def lines(self, console: Console) -> AbstractContextManager[Callable[[str], None]]:
        """By an actor beside the driver."""
        from ldsaug_ray.engines.ray.beside import lines

        return lines(console)
