"""Units of work: what an earlier attempt finished is skipped, the rest is done by the engine, progress is shown.

A unit is a table that describes or holds a bounded piece of a stage's input. Its files are written whole before its
marker, so a unit that died half-way is simply done again, and a finished one never is, on any number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from ldsaug_ray.common.storage import Location
from ldsaug_ray.engines.base import Places, UnitWork, Worker
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import StorageError
from ldsaug_ray.run.directory import UnitResult, marker_of
from ldsaug_ray.run.progress import bar
from ldsaug_ray.stages.shared.job import Job

LISTING_SECONDS = 60.0  # NFS by default takes half of this


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
        units: unit number -> its table; at least one row each.
        rows: unit number -> rows it counts for in the progress line.
        done: finished by an earlier attempt.
        make: builds a worker, in its process, from `args`.
        args: for `make`; what the engine shares, and lists of it, are replaced by what was shared.
        read: turns a unit's table into the table the worker gets, where it can ahead of it.
        unit_name: what the rows are, for the progress line.
        places: where each unit leaves its marker, and under which number; none: in the job's run directory, its own.
        check: called with all results so far, after each; may raise to stop early.

    Raises:
        ResourceError: whoever works on a certain unit dies.
        StorageError: files that were written are not listed.
    """
    places = places or In(job.run.root)
    results = {n: r for n, r in done.items() if n in units}
    before = len(results)
    todo = {n: units[n] for n in sorted(units) if n not in results}
    finished = sum(rows[n] for n in results)
    with bar(job.console, stage, sum(rows.values()), job.domain.words(unit_name), finished) as shown:
        if not todo:
            return results
        work = UnitWork(stage, todo, pool, make, args, places, read)
        with closing(job.engine.answers(work)) as answers:  # an iterator that is left is closed at once
            for result, seconds in answers:
                if len(results) == before:
                    shown.begin_at(shown.done, ago=seconds)  # the rate leaves out the wait for the first worker
                results[result.unit] = result
                shown.advance(rows[result.unit])
                check(results)
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


class In:
    """Every unit belongs to one run directory, under its own number."""

    def __init__(self, run: Location):
        self.run = run

    def __call__(self, unit: int) -> tuple[Location, int]:
        return self.run, unit
