"""Images/s of stage `encode` on Ray against the same model in a bare loop on the same cores, once warm.

    .venv/bin/python benchmarks/encode.py [--images 12288] [--repeats 3] [CONFIG]

Both read the same stored parts from disk, encode with the same batch size and write the same latents. The bare loop is
one process with as many threads as there are cores; Ray has one actor of one CPU per core. The first quarter of
the parts is not counted on either side: by then every actor has started and worked. Bare loop and Ray take turns,
because shared machines drift: the ratio of the medians is the result. The goal is at least 0.9.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.tables import item_table
from ldsaug_ray.engines import engine_of
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.models import build_vae, save_vae
from ldsaug_ray.run.directory import RunDir, UnitResult
from ldsaug_ray.stages.encode import EncodeWorker, ReadPart
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.units import run_units


def write_parts(root: Location, images: int, rows: int, resolution: int) -> list[str]:
    """Noise pictures in stored parts, as `prepare` leaves them; the encoder's cost does not depend on the picture."""
    rng = np.random.default_rng(0)
    files = []
    for start in range(0, images, rows):
        keys = [f"{n:08d}" for n in range(start, start + rows)]
        pixels = rng.integers(0, 256, (rows, resolution, resolution, 3), np.uint8)
        files.append(f"images/train-{start // rows:06d}.parquet")
        (root / files[-1]).write_table(
            item_table("image", IMAGES.pack(pixels), keys, ["train"] * rows), use_dictionary=False
        )
    return files


def bare(root: Location, files: list[str], rows: int, batch: int, threads: int) -> float:
    """Images/s of a plain loop, warm."""
    torch.set_num_threads(threads)
    worker, read = EncodeWorker(root / "train/vae.safetensors", batch, root, False), ReadPart(root)
    started = 0.0
    for n, file in enumerate(files):
        worker(n, read(pa.table({"file": [file]})))
        if n + 1 == len(files) // 4:
            started = time.perf_counter()
    return (len(files) - len(files) // 4) * rows / (time.perf_counter() - started)


def through_ray(job: Job, files: list[str], rows: int, batch: int, actors: int) -> float:
    """Images/s through the stage's own path, warm."""
    finished: list[float] = []

    def note(results: Mapping[int, UnitResult]) -> None:
        finished.append(time.perf_counter())

    root = job.run.root
    run_units(
        job,
        "encode",
        {n: pa.table({"file": [file]}) for n, file in enumerate(files)},
        dict.fromkeys(range(len(files)), rows),
        {},
        Pool(actors, 1, 0, None),
        EncodeWorker,
        (root / "train/vae.safetensors", batch, root, False),
        read=ReadPart(root),
        check=note,
    )
    warm = len(files) // 4
    return (len(files) - warm) * rows / (finished[-1] - finished[warm - 1])


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/celeba10k.yaml", help="whose model, resolution, batch")
    parser.add_argument("--images", type=int, default=48 * 512)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate({**config.dump(), "run_dir": folder, "ray": {"num_cpus": cores}})
        root, rows, batch = Location.of(folder), config.data.part_rows, config.encode.batch_size
        files = write_parts(root, arguments.images // rows * rows, rows, config.data.resolution)
        vae = build_vae(config.vae, config.data.resolution, 0)
        save_vae(root / "train/vae.safetensors", vae)
        job = Job(config, RunDir(root), Console(quiet=True), engine_of(config))
        print(f"{len(files)} parts of {rows} images, {config.data.resolution} px, batch {batch}, {cores} cores")
        print(f"{'cores':>5} {'bare loop':>12} {'Ray Data':>12} {'ratio':>7}")
        with engine_of(config):
            for used in sorted({1, cores}):
                plain, ray = [], []
                for _ in range(arguments.repeats):
                    plain.append(bare(root, files, rows, batch, used))
                    ray.append(through_ray(job, files, rows, batch, used))
                a, b = statistics.median(plain), statistics.median(ray)
                print(f"{used:>5} {a:>10,.0f}/s {b:>10,.0f}/s {b / a:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
