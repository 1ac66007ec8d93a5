"""σ and the share that is kept, searched by a Ray Tune of one's own: latents in, no images, no run.

    python examples/tune.py latents.npy 20

Half of the latents are augmented; what is kept is compared with the other half. The Fréchet distance says how near the
two are, AuthPct whether copies of the first half were kept. `ldsaug tune` searches whole runs, and resumes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune

import ldsaug_ray as la

SPACE = {"scale": tune.loguniform(0.05, 0.8), "keep": tune.loguniform(0.02, 0.5)}


def trial(point: dict[str, float], train: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    """What a trial reports: measures of the candidates that are kept with these two settings."""
    a = la.augment(train, n=9_000, sigma=f"norm*{point['scale']}", keep=point["keep"])
    found = la.measure(held_out, a.z, train=train)
    return {"frechet": found["frechet"], "authenticity": found["authenticity"]}


def search(z: np.ndarray, trials: int) -> tune.ResultGrid:
    """Latents float[N, d], shuffled and halved once: every trial sees the same halves, by the object store."""
    z = np.random.default_rng(0).permutation(z)
    halves = {"train": z[::2], "held_out": z[1::2]}
    settings = tune.TuneConfig(metric="frechet", mode="min", num_samples=trials, max_concurrent_trials=2)
    place = tune.RunConfig(storage_path=str(Path("runs/tune").resolve()))
    trainable = tune.with_parameters(trial, **halves)
    return tune.Tuner(trainable, param_space=SPACE, tune_config=settings, run_config=place).fit()


if __name__ == "__main__":
    results = search(np.load(sys.argv[1]), int(sys.argv[2]))
    print(results.get_dataframe()[["config/scale", "config/keep", "frechet", "authenticity"]].sort_values("frechet"))
    best = results.get_best_result()
    print("the least Fréchet distance by", best.config, best.metrics["frechet"])
    ray.shutdown()
