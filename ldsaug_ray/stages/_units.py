"""Units of work on Ray Data: read, process in an actor pool, write, mark; skip what an earlier attempt finished.

A unit is a table that describes or holds a bounded piece of a stage's input. Its files are written whole before its
marker, so a unit that died half-way is simply done again, and a finished one never is, on any number of workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ldsaug_ray.progress import bar
from ldsaug_ray.rundir import UnitResult, mark
from ldsaug_ray.stages._job import Job, Pool, clear_cause, limit_threads
from ldsaug_ray.storage import Location

Worker = Callable[[int, pa.Table], UnitResult]
_READERS = 2  # read-ahead tasks: enough to hide the disk, few enough to bound memory


class _UnitActor:
    """An actor of the pool: builds the stage's worker once, then handles one unit a call."""

    def __init__(self, make: Callable[..., Worker], args: Sequence[Any], run: Location, stage: str, threads: int):
        import ray

        self._run, self._stage = run, stage
        self._worker = make(*(ray.get(a) if isinstance(a, ray.ObjectRef) else a for a in args))
        limit_threads(threads)  # after the worker has imported what it computes with

    def __call__(self, table: pa.Table) -> pa.Table:
        unit = table["unit"][0].as_py()
        result = self._worker(unit, table.drop_columns(["unit"]))
        mark(self._run, self._stage, result)
        return pa.table({"result": [json.dumps(result.to_json())]})


def run_units(
    job: Job,
    stage: str,
    units: Mapping[int, pa.Table],
    rows: Mapping[int, int],
    done: Mapping[int, UnitResult],
    pool: Pool,
    make: Callable[..., Worker],
    args: Sequence[Any],
    *,
    read: Callable[[pa.Table], pa.Table] | None = None,
    unit_name: str = "rows",
    check: Callable[[Mapping[int, UnitResult]], None] = lambda results: None,
) -> dict[int, UnitResult]:
    """Do the units that are not done; returns the results of all.

    Args:
        job: the invocation.
        stage: whose markers to leave.
        units: unit number -> its table; at least one row each.
        rows: unit number -> rows it counts for in the progress line.
        done: finished by an earlier attempt.
        pool: actors to use.
        make: builds the worker in each actor from `args` (object references are fetched first).
        args: for `make`.
        read: turns a unit's table into the table the worker gets, in read-ahead tasks of their own.
        unit_name: what the rows are, for the progress line.
        check: called with all results so far, after each; may raise to stop early.
    """
    import ray.data

    results = {n: r for n, r in done.items() if n in units}
    todo = [n for n in sorted(units) if n not in results]
    finished = sum(rows[n] for n in results)
    with bar(job.console, stage, sum(rows.values()), unit_name, finished) as shown:
        if not todo:
            return results
        data: ray.data.Dataset = ray.data.from_arrow([_numbered(units[n], n) for n in todo])
        if read is not None:
            # num_cpus=0: reading waits for disks, and must not be starved by actors that hold every CPU
            data = data.map_batches(
                _KeepUnit(read),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=0,
                compute=ray.data.TaskPoolStrategy(size=_READERS),
            )
        data = data.map_batches(
            _UnitActor,
            fn_constructor_args=(make, tuple(args), job.run.root, stage, pool.threads),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory,
            compute=ray.data.ActorPoolStrategy(size=min(pool.count, len(todo))),
        )
        try:
            for row in data.iter_rows():
                result = UnitResult.from_json(json.loads(row["result"]))
                results[result.unit] = result
                shown.advance(rows[result.unit])
                check(results)
        except ray.exceptions.RayError as e:
            cause = clear_cause(e)
            if cause is not None:
                raise cause from e
            raise
    return results


class _KeepUnit:
    """Apply a read function and carry the unit's number along."""

    def __init__(self, read: Callable[[pa.Table], pa.Table]):
        self.read = read
        self.__name__ = getattr(read, "__name__", "read")

    def __call__(self, table: pa.Table) -> pa.Table:
        return _numbered(self.read(table.drop_columns(["unit"])), table["unit"][0].as_py())


def _numbered(table: pa.Table, unit: int) -> pa.Table:
    return table.append_column("unit", pa.array([unit] * len(table), pa.int32()))
