"""Units of work on Ray Data: read, process in an actor pool, write, mark; skip what an earlier attempt finished.

A unit is a table that describes or holds a bounded piece of a stage's input. Its files are written whole before its
marker, so a unit that died half-way is simply done again, and a finished one never is, on any number of workers.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import LdsaugError, ResourceError, StorageError, error_named
from ldsaug_ray.run.directory import UnitResult, mark, marker_of
from ldsaug_ray.run.progress import bar
from ldsaug_ray.run.tracking import first_line
from ldsaug_ray.stages._job import Job, Pool, limit_threads
from ldsaug_ray.stages._meters import Meters

if TYPE_CHECKING:
    from ray.data import Dataset

Worker = Callable[[int, pa.Table], UnitResult]
Places = Callable[[int], tuple[Location, int]]  # unit -> the run directory that it belongs to, and its number there

DEATHS = 10  # of actors at work on one unit, after which that unit is to blame
LISTING_SECONDS = 60.0  # NFS by default takes half of this


class _UnitActor:
    """An actor of the pool: builds the stage's worker once, then handles one unit a call."""

    def __init__(self, make: Callable[..., Worker], args: Sequence[Any], places: Places, stage: str, threads: int):
        self._places, self._stage, self._meters = places, stage, Meters(stage)
        self._error: LdsaugError | None = None
        try:
            self._worker = make(*(_fetched(a) for a in args))
        except LdsaugError as e:  # raised here, Ray would start the actor again and again
            self._error = e
        limit_threads(threads)  # after the worker has imported what it computes with

    def __call__(self, table: pa.Table) -> pa.Table:
        started, cpu = time.monotonic(), time.process_time()
        try:
            if self._error is not None:
                raise self._error
            if "error" in table.column_names:  # the reader's
                return table
            unit = table["unit"][0].as_py()
            given = _unpacked(table) if table.column_names == ["unit", "table"] else table.drop_columns(["unit"])
            result = self._worker(unit, given)
            spent = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
            result = replace(result, extra={**result.extra, **{k: round(v, 4) for k, v in spent.items()}})
            self._meters.count(rows=result.counts.rows_in, **spent)
            run, number = self._places(unit)
            mark(run, self._stage, replace(result, unit=number))
        except LdsaugError as e:
            return _answer(None, e)
        return _answer(json.dumps(result.to_json()), seconds=time.monotonic() - started)


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
    places: Places | None = None,
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
        make: builds the worker in each actor from `args`.
        args: for `make`; object references, and lists of them, are fetched first.
        read: turns a unit's table into the table the worker gets, ahead of it, in actors of its own.
        unit_name: what the rows are, for the progress line.
        places: where each unit leaves its marker, and under which number; none: in the job's run directory, its own.
        check: called with all results so far, after each; may raise to stop early.

    Raises:
        ResourceError: whoever works on a certain unit dies.
        StorageError: files that were written are not listed.
    """
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    places = places or In(job.run.root)
    results = {n: r for n, r in done.items() if n in units}
    todo = [n for n in sorted(units) if n not in results]
    finished = sum(rows[n] for n in results)
    with bar(job.console, stage, sum(rows.values()), unit_name, finished) as shown:
        if not todo:
            return results
        actors = min(pool.count, len(todo))
        data = one_block_each([{"unit": n, "table": _packed(units[n])} for n in todo])
        if read is not None:
            # num_cpus=0: reading waits for disks, and must not be starved by actors that hold every CPU. Actors, since
            # Ray ends a task's idle process after a second, and starting the next costs more than reading.
            data = data.map_batches(
                _Reader,
                fn_constructor_args=(read,),
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
                fn_constructor_args=(make, tuple(args), places, stage, pool.threads),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
                memory=pool.memory,
                compute=ray.data.ActorPoolStrategy(size=actors),
                max_task_retries=DEATHS,
            )
        try:
            for row in data.iter_rows():
                if row["error"] is not None:
                    raise error_named(row["kind"], row["error"])
                result = UnitResult.from_json(json.loads(row["result"]))
                if len(results) == len(units) - len(todo):
                    shown.begin_at(shown.done, ago=row["seconds"])  # the rate leaves out the wait for the first worker
                results[result.unit] = result
                shown.advance(rows[result.unit])
                check(results)
        except ray.exceptions.RayActorError as e:
            left = [n for n in todo if n not in results]
            raise ResourceError(
                f"{stage}: who was at work on a certain unit died, {DEATHS + 1} times over ({first_line(e)}). Of "
                f"{len(units):,} units not done are {', '.join(map(str, left[:5]))}{', …' * (len(left) > 5)}. If "
                f"memory is short, {stage}.workers.memory_gb reserves more; the same command goes on"
            ) from None
    until_listed(stage, results, places)
    return results


def until_listed(stage: str, results: Mapping[int, UnitResult], places: Places) -> None:
    """Wait until listings show every file of the units: a shared file system may show late what another machine wrote,
    and what comes next goes by listings.

    Raises:
        StorageError: some are still not there after a minute.
    """
    wanted: dict[str, tuple[Location, set[str]]] = {}
    for unit, result in results.items():
        run, number = places(unit)
        for file in (*result.files, marker_of(stage, number)):
            folder, _, name = file.rpartition("/")
            listed = run / folder if folder else run
            wanted.setdefault(listed.path, (listed, set()))[1].add(name)
    until = time.monotonic() + LISTING_SECONDS
    for listed, names in wanted.values():
        while absent := names - set(listed.names()):
            if time.monotonic() > until:
                raise StorageError(
                    f"{listed.uri}: {len(absent):,} of {len(names):,} files that were written are not listed, such as "
                    f"{min(absent)}; were they deleted, or is the folder not the same on every node?"
                )
            time.sleep(0.5)


def _fetched(argument: Any) -> Any:
    """What an object reference, or a list of them, stands for; anything else as it is."""
    import ray

    refs = argument if isinstance(argument, list) else [argument]
    return ray.get(argument) if refs and all(isinstance(ref, ray.ObjectRef) for ref in refs) else argument


class In:
    """Every unit belongs to one run directory, under its own number."""

    def __init__(self, run: Location):
        self.run = run

    def __call__(self, unit: int) -> tuple[Location, int]:
        return self.run, unit


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
