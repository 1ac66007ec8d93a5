"""A process of the crew (`units`): what it does in its own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import ray

from ldsaug_ray.engines.base import MarkedWorker, Steps
from ldsaug_ray.engines.ray.held import fetched
from ldsaug_ray.engines.ray.meters import Meters
from ldsaug_ray.engines.threads import limit_threads
from ldsaug_ray.errors import LdsaugError


class UnitActor:
    """Builds a stage's worker once, then handles one unit a call. Between stages it holds nothing but its imports."""

    def __init__(self) -> None:
        self._stage: Any = None  # whose worker this is: the reference to its work
        self._worker: MarkedWorker | LdsaugError | None = None
        self._trial: Callable[[Mapping[str, Any]], Steps] | None = None
        self._read: Callable[[pa.Table], pa.Table] | None = None
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[pa.Table]] | None = None

    def here(self) -> None:
        """Answers once the process is up."""

    def prepare(self, after: None) -> None:
        """Import what most stages compute with."""
        import ldsaug_ray.lds.exact
        import ldsaug_ray.models.inference  # noqa: F401

    def let_go(self) -> None:
        """Forget the stage."""
        self._stage = self._worker = self._trial = self._read = self._ahead = None
        gc.collect()

    def do(
        self, stage: list[Any], unit: int, table: pa.Table, ahead: tuple[int, pa.Table] | None
    ) -> tuple[dict[str, Any] | None, float, tuple[str, str] | None]:
        """A unit's result and seconds, or the kind and text of an error meant for the user: Ray would bury it in its
        own. Meanwhile the table of the unit `ahead` is read."""
        try:
            if self._stage != stage[0]:
                self._build(stage[0])
            if isinstance(self._worker, LdsaugError):
                raise self._worker
            assert self._worker is not None
            given = self._table(unit, table)
            if ahead is not None and self._read is not None:
                self._ahead = (ahead[0], self._reader.submit(self._read, ahead[1]))
            result, seconds = self._worker(unit, given)
        except LdsaugError as e:
            return None, 0.0, (type(e).__name__, str(e))
        return result.to_json(), seconds, None

    def trial(self, trials: list[Any], asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Every evaluation of a trial."""
        if self._stage != trials[0]:
            self.let_go()
            (make, args), self._stage = ray.get(trials[0]), trials[0]
            self._trial = make(*args)
            limit_threads(1)
        assert self._trial is not None
        steps: Steps = self._trial(asked)
        found: list[Mapping[str, Any]] = []
        try:
            while not found or not found[-1]["over"]:
                found.append(steps.step())
        finally:
            steps.close()
        return found

    def _build(self, stage: Any) -> None:
        self.let_go()
        work, self._stage = ray.get(stage), stage
        self._read = work.read
        try:
            worker = work.make(*map(fetched, work.args))
            self._worker = MarkedWorker(worker, work.places, work.stage, Meters(work.stage).count)
        except LdsaugError as e:
            self._worker = e
        limit_threads(work.pool.threads)  # after the worker has imported what it computes with

    def _table(self, unit: int, table: pa.Table) -> pa.Table:
        if self._read is None:
            return table
        ahead, self._ahead = self._ahead, None
        return ahead[1].result() if ahead is not None and ahead[0] == unit else self._read(table)
