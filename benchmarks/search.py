"""What a search without training costs, against the scoring of one bandwidth: 64 trials over σ and τ.

    .venv/bin/python benchmarks/search.py [--candidates 600000] [--latents 20000] [--dim 512] [--bandwidths 4]
        [--objective a_attribute_gap] [--engine ray]

The search's own path on made-up latents: `score_at` for one σ alone, then for all of the space, then every trial of
the grid (selection, and the measures of A) without MLflow, and again with it. Asked is that 64 trials cost at most 1.5
times the scoring of one. Starting Ray and the workers, compiling, a new MLflow database and writing the latents are not
counted. `processor`: seconds of this process and all that it started, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import yaml
from rich.console import Console

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.storage import Location
from ldsaug_ray.engines import engine_of
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, mark
from ldsaug_ray.search.log import SearchLog
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.proxies import ALL
from ldsaug_ray.search.run import _Kept, _scorings, _search
from ldsaug_ray.search.trials import read_trials
from ldsaug_ray.stages.score import score_at
from ldsaug_ray.stages.shared.job import Job

TRIALS = 64
HELD_OUT = 2000
ATTRIBUTE = "label"


def write_latents(run: RunDir, n: int, d: int) -> None:
    """Standard normal latents, as `encode` leaves them: n to train, and held-out ones; each with a label."""
    rng = np.random.default_rng(0)
    labels = pa.StructArray.from_arrays([pa.array(rng.choice([-1, 1], n + HELD_OUT).astype(np.int8))], [ATTRIBUTE])
    run.begin("prepare", "benchmark")
    images = "images/test-000000.parquet"
    (run.root / images).write_table(pa.table({"attributes": labels[n:]}))
    mark(run.root, "prepare", UnitResult(0, Counts(HELD_OUT, HELD_OUT), 0, (images,), (HELD_OUT,)))
    for start in range(0, n + HELD_OUT, 4096):
        rows = np.arange(start, min(start + 4096, n + HELD_OUT))
        z = vectors(rng.standard_normal((len(rows), d), np.float32))
        split = np.where(rows < n, "train", "test")
        table = pa.table(
            {"key": [f"{k:09d}" for k in rows], "split": split, "z": z, "attributes": labels.take(pa.array(rows))}
        )
        (run.root / f"latents/part-{start // 4096:06d}.parquet").write_table(table)
    for stage in ("prepare", "train", "encode"):
        run.finish(stage, "benchmark", Counts(n, n), "0" * 64, 1.0, n, train_images=n, test_images=HELD_OUT)


def processor() -> float:
    """Seconds of the processor of this process and its descendants, of those too that have ended."""
    me, total = psutil.Process(), 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


class Times:
    """Seconds, and seconds of the processor, by what took them."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[float, float]] = {}

    @contextmanager
    def taken(self, what: str) -> Iterator[None]:
        before, started = processor(), time.perf_counter()
        yield
        self.of[what] = time.perf_counter() - started, processor() - before


def plan(folder: Path, arguments: argparse.Namespace) -> Search:
    """A grid over σ and the share that is kept."""
    tree = {
        "run_dir": str(folder / "run"),
        "engine": arguments.engine,
        "data": {"source": "sklearn:digits", "attributes": "labels.csv"},  # not read
        "score": {"n_candidates": arguments.candidates},
        "select": {"exclude_parents": True},
        "evaluate": {"attributes": [ATTRIBUTE]},
        "tune": {
            "space": {
                "score.sigma.scale": {"low": 0.15, "high": 0.6, "log": True, "values": arguments.bandwidths},
                "select.top_fraction": {
                    "low": 0.01,
                    "high": 0.5,
                    "log": True,
                    "values": TRIALS // arguments.bandwidths,
                },
            },
            "objectives": [{arguments.objective: 1}],
            "search": "grid",
        },
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(tree))
    return plan_search(str(folder / "search.yaml"))


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=600_000)
    parser.add_argument("--latents", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--bandwidths", type=int, default=4)
    parser.add_argument("--objective", default="a_attribute_gap", choices=ALL)
    parser.add_argument("--engine", default="ray", choices=["ray", "inline"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # MLflow's file
        search = plan(folder, arguments)
        run = RunDir(Location.of(search.root))
        run.create()
        write_latents(run, arguments.latents, arguments.dim)
        with engine_of(search.config) as engine:
            job = Job(search.config, run, Console(quiet=True), engine)
            times = Times()
            for name, n in (("warm", 9_000), ("one", arguments.candidates)):
                score = search.config.score.model_copy(update={"n_candidates": n})
                config = search.config.model_copy(update={"score": score})
                one = RunDir(Location.of(str(folder / name)))
                one.create()
                with times.taken("scoring, one σ"):
                    score_at(replace(job, config=config), [(config, one)])
            with times.taken("scoring, all σ in one pass"):
                scorings = _scorings(job, search)
            for enabled in (False, True):
                tracking = search.config.tracking.model_copy(update={"enabled": enabled})
                sought = replace(search, config=search.config.model_copy(update={"tracking": tracking}))
                log = SearchLog(job, sought)  # a new database takes seconds, once
                shutil.rmtree(folder / "run/search", ignore_errors=True)
                with times.taken(f"{TRIALS} trials, {'with' if enabled else 'without'} MLflow"), log:
                    kept = _Kept(job, sought, {"encode": "0" * 64}, log)
                    _search(job, sought, kept, [run], scorings, None)
                    log.finish(kept.all())
        trials = read_trials(run.root)
        assert [t.state for t in trials] == TRIALS * ["finished"], trials
    single, all_of_them, *searches = (np.array(times.of[what]) for what in times.of)
    print(f"{arguments.candidates:,} candidates, {arguments.latents:,} latents, d = {arguments.dim}")
    print(f"a trial's own part, {arguments.objective}: {np.median([t.seconds for t in trials]):.2f} s")
    print(f"{'':<30} {'seconds':>9} {'':>6} {'processor':>10}")
    rows = {
        **times.of,
        **{f"the search{how}": all_of_them + x for how, x in zip(("", ", with MLflow"), searches, strict=True)},
    }
    for what, (seconds, used) in rows.items():
        print(f"{what:<30} {seconds:9.1f} {seconds / single[0]:6.2f} {used:10.1f} {used / single[1]:6.2f}")


if __name__ == "__main__":
    main()
