"""Seconds of each stage of a small run under `engine: ray`, once its session runs, beside `engine: inline`.

    .venv/bin/python benchmarks/starting.py [CONFIG] [--repeats 3] [section.key=value ...]

CONFIG is by default the demo's; trainings take 64 steps: it is their start that is compared. Both engines make the same
run in turn, in new folders, and in this process, so that what it imports and compiles is there for either after a first
run that does not count; each run has a Ray of its own, whose start does not count, and workers that serve all its
stages. The goal is at most 3 s more for any stage. Medians, since other work drifts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence

from ldsaug_ray.api.runs import perform, stages_of
from ldsaug_ray.config import load_config
from ldsaug_ray.run.directory import RunDir

ENGINES = ("inline", "ray")
SHORT = ("train.steps=64", "finetune.steps=64")


def one(config: str, engine: str, overrides: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage of a run in a folder that goes again."""
    with tempfile.TemporaryDirectory(prefix="ldsaug-starting-") as folder:
        own = (f"run_dir={folder}/run", f"engine={engine}", "tracking.enabled=false")
        settings = load_config(config, [*SHORT, *overrides, *own])
        run: RunDir = perform(settings, stages_of("run", settings))[0]
        return {stage: float(entry["seconds"]) for stage, entry in run.manifest["stages"].items()}


def main() -> None:
    """Print a table of stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/demo.yaml")
    parser.add_argument("--repeats", type=int, default=3)
    args, overrides = parser.parse_known_args()
    took: dict[str, dict[str, list[float]]] = {engine: defaultdict(list) for engine in ENGINES}
    one(args.config, "inline", overrides)
    for _ in range(args.repeats):
        for engine in ENGINES:
            for stage, seconds in one(args.config, engine, overrides).items():
                took[engine][stage].append(seconds)
    print("| stage | inline, s | ray, s | more, s |\n| --- | --- | --- | --- |")
    for stage in took["inline"]:
        inline, ray = (statistics.median(took[engine][stage]) for engine in ENGINES)
        print(f"| {stage} | {inline:.2f} | {ray:.2f} | {ray - inline:.2f} |")


if __name__ == "__main__":
    main()
