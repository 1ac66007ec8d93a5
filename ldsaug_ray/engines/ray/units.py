"""Units of work on Ray Data: read ahead in actors of their own, then done by a pool of actors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.engines.base import MarkedWorker, Places, UnitWork, Worker
from ldsaug_ray.engines.ray.held import fetched
from ldsaug_ray.engines.ray.meters import Meters
from ldsaug_ray.engines.threads import limit_threads
from ldsaug_ray.errors import LdsaugError, ResourceError, error_named
from ldsaug_ray.run.directory import UnitResult

if TYPE_CHECKING:
    from ray.data import Dataset

DEATHS = 10  # of actors at work on one unit, after which that unit is to blame


class _UnitActor:
    """An actor of the pool: builds the stage's worker once, then handles one unit a call."""

    def __init__(self, make: Callable[..., Worker], args: Sequence[Any], places: Places, stage: str, threads: int):
        self._error: LdsaugError | None = None
        try:
            self._worker = MarkedWorker(make(*map(fetched, args)), places, stage, Meters(stage).count)
        except LdsaugError as e:  # raised here, Ray would start the actor again and again
            self._error = e
        limit_threads(threads)  # after the worker has imported what it computes with

    def __call__(self, table: pa.Table) -> pa.Table:
        try:
            if self._error is not None:
                raise self._error
            if "error" in table.column_names:  # the reader's
                return table
            unit = table["unit"][0].as_py()
            given = _unpacked(table) if table.column_names == ["unit", "table"] else table.drop_columns(["unit"])
            result, seconds = self._worker(unit, given)
        except LdsaugError as e:
            return _answer(None, e)
        return _answer(json.dumps(result.to_json()), seconds=seconds)


def answers(work: UnitWork) -> Generator[tuple[UnitResult, float]]:
    """As of `Engine.answers`."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    actors = min(work.pool.count, len(work.tables))
    data = one_block_each([{"unit": n, "table": _packed(table)} for n, table in work.tables.items()])
    if work.read is not None:
        # num_cpus=0: reading waits for disks, and must not be starved by actors that hold every CPU. Actors, since
        # Ray ends a task's idle process after a second, and starting the next costs more than reading.
        data = data.map_batches(
            _Reader,
            fn_constructor_args=(work.read,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.ActorPoolStrategy(size=(actors + 1) // 2),
        )
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to say max_task_retries. Without a limit it tries a unit that kills its actor
        # for ever
        warnings.simplefilter("ignore", RayDeprecationWarning)
        data = data.map_batches(
            _UnitActor,
            fn_constructor_args=(work.make, tuple(work.args), work.places, work.stage, work.pool.threads),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=work.pool.cpus,
            num_gpus=work.pool.gpus or None,
            memory=work.pool.memory,
            compute=ray.data.ActorPoolStrategy(size=actors),
            max_task_retries=DEATHS,
        )
    left = set(work.tables)
    try:
        for row in data.iter_rows():
            if row["error"] is not None:
                raise error_named(row["kind"], row["error"])
            result = UnitResult.from_json(json.loads(row["result"]))
            left.discard(result.unit)
            yield result, row["seconds"]
    except ray.exceptions.RayActorError as e:
        some = f"{', '.join(map(str, sorted(left)[:5]))}{', …' * (len(left) > 5)}"
        raise ResourceError(
            f"{work.stage}: who was at work on a certain unit died, {DEATHS + 1} times over ({first_line(e)}). Of "
            f"{len(work.tables):,} units not done are {some}. "
            f"If memory is short, {work.stage}.workers.memory_gb reserves more; the same command goes on"
        ) from None


class _Reader:
    """Apply a read function and carry the unit's number along."""

    def __init__(self, read: Callable[[pa.Table], pa.Table]):
        self.read = read

    def __call__(self, table: pa.Table) -> pa.Table:
        try:
            given = self.read(_unpacked(table))
            return given.append_column("unit", pa.array([table["unit"][0].as_py()] * len(given), pa.int32()))
        except LdsaugError as e:
            return _answer(None, e)


def _answer(result: str | None, error: LdsaugError | None = None, seconds: float = 0.0) -> pa.Table:
    """What comes back of a unit. An error meant for the user travels as data: Ray would bury it in its own."""
    kind, text = (None, None) if error is None else (type(error).__name__, str(error))
    texts = {"result": result, "kind": kind, "error": text}
    return pa.table({**{name: pa.array([t], pa.string()) for name, t in texts.items()}, "seconds": [seconds]})


def one_block_each(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """A Ray dataset with one block a row. (`from_arrow` would run a task a block, and wait for a CPU that is taken.)"""
    import ray.data

    return ray.data.from_items(list(rows), override_num_blocks=len(rows))


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _unpacked(table: pa.Table) -> pa.Table:
    return pa.ipc.open_stream(table["table"][0].as_buffer()).read_all()
