"""Images/s of training through Ray Train against a bare PyTorch loop of the same model on the same cores, once warm.

    .venv/bin/python benchmarks/training.py [--steps 400] [--repeats 3] [CONFIG]

Both take the same steps of `vae.Trainer` on batches of the same size: the bare loop from an array in memory, Ray Train
through stage `train`, which reads stored parts in a thread and reports its progress. The bare loop is one process
with as many threads as there are cores, as is Ray's one worker. The first steps are not counted on either side, and no
checkpoint is written within those that are. They take turns, because shared machines drift: the ratio of the medians is
the result. The share of its time that the worker waits for data is measured around the request for each batch.

The bare loop runs twice: plain, as anyone would write it, and with the worker's own settings of the C library's
allocator and of OpenMP's waiting, so that what those gain is not taken for Ray's speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from rich.console import Console

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.tables import item_table
from ldsaug_ray.engines import engine_of
from ldsaug_ray.engines.threads import keep_freed_memory
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, mark
from ldsaug_ray.stages.shared.clock import WARM_STEPS
from ldsaug_ray.stages.shared.job import Job

PARTS = 16


def write_parts(run: RunDir, config: Config) -> None:
    """Noise pictures, as stage `prepare` leaves them; the cost of a step does not depend on the picture."""
    rng = np.random.default_rng(0)
    rows, side = config.data.part_rows, config.data.resolution
    done = run.begin("prepare", "benchmark")
    assert not done
    for n in range(PARTS):
        keys = [f"{k:08d}" for k in range(n * rows, (n + 1) * rows)]
        file = f"images/train-{n:06d}.parquet"
        pixels = rng.integers(0, 256, (rows, side, side, 3), np.uint8)
        (run.root / file).write_table(
            item_table("image", IMAGES.pack(pixels), keys, ["train"] * rows), use_dictionary=False
        )
        mark(run.root, "prepare", UnitResult(n, Counts(rows, rows), n, (file,), (rows,)))
    n = PARTS * rows
    run.finish("prepare", "benchmark", Counts(n, n), "0" * 64, 1.0, n, train_images=n, test_images=0)


def bare(config: Config, *, settings_of_the_worker: bool) -> float:
    """Images/s of a plain loop, warm."""
    import torch

    if settings_of_the_worker:
        keep_freed_memory()

    from ldsaug_ray.models import Trainer, build_discriminator, build_vae

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    settings, side = config.train, config.data.resolution
    adversarial = settings.objective.adversarial
    judge = build_discriminator(config.vae, side, adversarial, config.seed) if adversarial.weight else None
    vae = build_vae(config.vae, side, config.seed)
    trainer = Trainer(vae, settings, config.seed, "cpu", discriminator=judge)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * config.data.part_rows, side, side, 3), np.uint8)
    started = 0.0
    for step in range(settings.steps):
        if step == WARM_STEPS:
            started = time.perf_counter()
        trainer.train_step(images[rng.integers(0, len(images), settings.batch_size)])
    return (settings.steps - WARM_STEPS) * settings.batch_size / (time.perf_counter() - started)


def through_ray(config: Config) -> tuple[float, float]:
    """Images/s of stage `train`, warm, and the share of the time that it waited for data."""
    from ldsaug_ray.stages import train

    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate({**config.dump(), "run_dir": folder})
        run = RunDir(Location.of(folder))
        write_parts(run, config)
        facts = train.run(Job(config, run, Console(quiet=True), engine_of(config)), {}).facts
    return facts["images_per_second"], facts["waiting_for_data"]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/celeba10k.yaml", help="whose model, resolution, batch")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare", choices=("plain", "tuned"), help=argparse.SUPPRESS)  # a process of its own
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="settings that replace the file's")
    arguments = parser.parse_args()
    often = f"train.checkpoint_every={arguments.steps}"
    config = load_config(arguments.config, [*arguments.overrides, f"train.steps={arguments.steps}", often])
    if arguments.bare:
        print(bare(config, settings_of_the_worker=arguments.bare == "tuned"))
        return
    side, batch = config.data.resolution, config.train.batch_size
    print(f"{side} px, batch {batch}, {len(os.sched_getaffinity(0))} cores, {arguments.steps} steps; images/s")
    print("      bare      tuned  Ray Train  of bare  of tuned  waiting for data")
    rows: list[tuple[float, float, float, float]] = []
    plain_environment = dict(os.environ)
    with engine_of(config):
        for _ in range(arguments.repeats):
            # processes of their own, as Ray's worker is; the session lies idle meanwhile
            plain = in_a_process("plain", plain_environment)
            tuned = in_a_process("tuned", dict(os.environ))
            rows.append((plain, tuned, *through_ray(config)))
            show(*rows[-1])
    show(*(statistics.median(column) for column in zip(*rows, strict=True)), "  (medians)")


def in_a_process(kind: str, environment: dict[str, str]) -> float:
    """Images/s of the bare loop in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--bare", kind]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return float(out.splitlines()[-1])


def show(plain: float, tuned: float, ray: float, waiting: float, note: str = "") -> None:
    """A line of the table."""
    print(
        f"{plain:>10,.0f} {tuned:>10,.0f} {ray:>10,.0f} {ray / plain:>8.2f} {ray / tuned:>9.2f} {waiting:>17.1%}{note}"
    )


if __name__ == "__main__":
    main()
