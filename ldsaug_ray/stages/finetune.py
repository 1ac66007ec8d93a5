"""Stage `finetune`: the baseline VAE trained further on train + A, as in the paper: decoded images join the set."""

from __future__ import annotations

from collections.abc import Mapping

from ldsaug_ray.rundir import UnitResult
from ldsaug_ray.stages._job import Job
from ldsaug_ray.stages._outcome import Outcome
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.stages.train import fit


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Continue from `train/vae.safetensors` on the train split and `augmented/`."""
    real = image_parts(job, "train")
    job.run.require("decode")
    units = job.run.finished_units("decode")
    made = [p for n in sorted(units) for p in zip(units[n].files, units[n].file_rows, strict=True)]
    outcome = fit(job, "finetune", job.config.finetune, [*real, *made], initial="train/vae.safetensors")
    outcome.facts.update(train_images=sum(r for _, r in real), augmented_images=sum(r for _, r in made))
    return outcome
