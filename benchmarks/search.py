"""What a search without training costs, against the scoring of one bandwidth: 64 trials over σ and τ.

    .venv/bin/python benchmarks/search.py [--candidates 600000] [--latents 20000] [--dim 512] [--bandwidths 4]
        [--objective a_attribute_gap]

The search's own path on made-up latents: `score_at` for one σ alone, then for all of the space, then every trial of
the grid by Ray Tune (selection, and the measures of A), with MLflow. Asked is that 64 trials cost at most 1.5 times the
scoring of one. Starting Ray and writing the latents is not counted; starting pools and Tune is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
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


def plan(folder: Path, arguments: argparse.Namespace) -> Search:
    """A grid over σ and the share that is kept."""
    tree = {
        "run_dir": str(folder / "run"),
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # MLflow's file
        search = plan(folder, arguments)
        run = RunDir(Location.of(search.root))
        run.create()
        write_latents(run, arguments.latents, arguments.dim)
        job = Job(search.config, run, Console(quiet=True), engine_of(search.config))
        with engine_of(search.config):
            times = {}
            one = RunDir(Location.of(str(folder / "one")))
            one.create()
            started = time.perf_counter()
            score_at(job, [(search.config, one)])
            times["scoring, one σ"] = time.perf_counter() - started
            started = time.perf_counter()
            scorings = _scorings(job, search)
            times[f"scoring, {len(scorings)} σ in one pass"] = time.perf_counter() - started
            started = time.perf_counter()
            with SearchLog(job, search) as log:
                kept = _Kept(job, search, {"encode": "0" * 64}, log)
                _search(job, search, kept, [run], scorings, None)
                log.finish(kept.all())
            times[f"{TRIALS} trials"] = time.perf_counter() - started
        trials = read_trials(run.root)
        assert [t.state for t in trials] == TRIALS * ["finished"], trials
    first, *rest = times.values()
    print(f"{arguments.candidates:,} candidates, {arguments.latents:,} latents, d = {arguments.dim}")
    print(f"a trial's own part, {arguments.objective}: {np.median([t.seconds for t in trials]):.2f} s")
    for what, seconds in times.items():
        print(f"{what:<28} {seconds:7.1f} s  {seconds / first:5.2f}")
    print(f"{'the search':<28} {sum(rest):7.1f} s  {sum(rest) / first:5.2f}  (asked: at most 1.5)")


if __name__ == "__main__":
    main()
