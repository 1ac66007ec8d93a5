"""Candidates/s of stage `score`: one worker against two (each of one CPU), latents replicated and sharded, once warm.

    .venv/bin/python benchmarks/score.py [--candidates 600000] [--latents 20000] [--dim 512] [--repeats 3]

The stage's own path on made-up latents: Ray Data, actors, Parquet. The first quarter of the units is not counted: by
then every actor has started and worked. The kinds take turns, because shared machines drift; medians are printed. The
goal: two workers do at least 1.8 times as much as one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.run.directory import Counts, RunDir
from ldsaug_ray.stages import score
from ldsaug_ray.stages.shared.job import Job


def write_latents(run: RunDir, n: int, d: int) -> None:
    """Standard normal latents, as `encode` leaves them."""
    rng = np.random.default_rng(0)
    for start in range(0, n, 4096):
        rows = min(4096, n - start)
        keys = [f"{k:09d}" for k in range(start, start + rows)]
        z = vectors(rng.standard_normal((rows, d), np.float32))
        table = pa.table({"key": keys, "split": ["train"] * rows, "z": z})
        (run.root / f"latents/part-{start // 4096:06d}.parquet").write_table(table)
    run.finish("encode", "benchmark", Counts(n, n), "0" * 64, 1.0, n)


def rate(config: Config, run: RunDir) -> float:
    """Candidates/s, warm."""
    run.reset("score")
    score.run(Job(config, run, Console(quiet=True), engine_of(config)), {})
    markers = (Path(config.run_dir) / "_progress/score").glob("*.unit.json")
    finished = sorted(marker.stat().st_mtime for marker in markers)
    warm = len(finished) // 4
    return (len(finished) - warm) * config.score.unit_candidates / (finished[-1] - finished[warm - 1])


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=600_000)
    parser.add_argument("--latents", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Location.of(folder))
        write_latents(run, arguments.latents, arguments.dim)

        def config(workers: int, placement: str) -> Config:
            return Config.model_validate(
                {
                    "run_dir": folder,
                    "data": {"source": "sklearn:digits"},
                    "vae": {"latent_dim": arguments.dim},
                    "ray": {"num_cpus": 2},
                    "score": {
                        "n_candidates": arguments.candidates,
                        "part_candidates": arguments.candidates // 32,
                        "shard_latents": -(-arguments.latents // 2),
                        "placement": placement,
                        "workers": {"count": workers},
                    },
                }
            )

        kinds = [(1, "replicated"), (2, "replicated"), (2, "sharded")]
        found: dict[tuple[int, str], list[float]] = {kind: [] for kind in kinds}
        with engine_of(config(1, "replicated")):
            for _ in range(arguments.repeats):
                for kind in kinds:
                    found[kind].append(rate(config(*kind), run))
        print(f"{arguments.candidates:,} candidates x {arguments.latents:,} latents x {arguments.dim} d")
        print(f"{'workers':>7} {'latents':>10} {'candidates/s':>14} {'ratio':>7}")
        one = statistics.median(found[kinds[0]])
        for (workers, placement), rates in found.items():
            median = statistics.median(rates)
            print(f"{workers:>7} {placement:>10} {median:>14,.0f} {median / one:>7.2f}")


if __name__ == "__main__":
    main()
