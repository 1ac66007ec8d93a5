"""Stage `finetune`: the baseline VAE trained further on train + A.

Every arm starts from the same weights and sees the same training images in the same order for as many steps; what A
adds to a step comes on top (`finetune.mixing`), and what it is used for is `finetune.uses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldsaug_ray.common.digest import code_digest
from ldsaug_ray.config import Config, Finetune
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.run.directory import UnitResult
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.stages.shared.batches import AugmentedParts, Parts
from ldsaug_ray.stages.shared.checkpoints import Checkpoint
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.prior import Judged
from ldsaug_ray.stages.train import feasible, fit, train_on


def _judge_settings(config: Config) -> dict[str, Any]:
    """Settings of section `sample` that the prior which is judged goes by."""
    judge = config.finetune.judge
    if judge in ("a", "normal"):
        return {}
    from ldsaug_ray.models.priors import PRIORS

    names = PRIORS.get(judge).settings
    own = [code] if (code := code_digest([judge])) else []
    sample = config.sample.model_dump(mode="json")
    return {"judge": [{name: sample[name] for name in names}, own]}


STAGE = declare(
    Stage(
        name="finetune",
        does="train further on train + A",
        unit="images",
        needs=("prepare", "train", "decode"),
        writes=("finetune",),
        sections=("finetune", "seed"),
        also=_judge_settings,
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Continue from `train/vae.safetensors` on the train split and `augmented/`.

    Raises:
        ImpossibleError: `finetune.mixing` asks for less than one image of A a step, or for A where none was kept.
    """
    settings = job.config.finetune
    real = Parts(tuple(image_parts(job, "train")), settings.batch_size)
    augmented = _augmented(job, real)
    outcome = fit(job, "finetune", settings, real, augmented, **_start(job))
    outcome.facts.update(train_images=real.rows, augmented_images=0 if augmented is None else augmented.rows)
    return outcome


def run_to(job: Job, step: int) -> Checkpoint:
    """Fine-tune, or go on, to a step before the last, as if the stage were interrupted there; gives the checkpoint.

    Raises:
        ImpossibleError, DivergedError, ResourceError, StorageError: as `run`.
    """
    settings = job.config.finetune
    real = Parts(tuple(image_parts(job, "train")), settings.batch_size)
    return train_on(job, "finetune", settings, real, _augmented(job, real), **_start(job), pause_at=step).last


def _start(job: Job) -> dict[str, Any]:
    """Where training begins, and how it goes about A."""
    settings = job.config.finetune
    trained = "train/discriminator.safetensors"
    return {
        "initial": "train/vae.safetensors",
        "initial_discriminator": trained if (job.run.root / trained).exists() else None,
        "freeze": settings.freeze,
        "uses": settings.uses,
        "judged": _judged(job),
    }


def _judged(job: Job) -> Judged | None:
    """What the discriminator judges beside reconstructions; none: images decoded from N(0, I)."""
    settings = job.config.finetune
    if settings.judge == "normal":
        return None
    from ldsaug_ray.models import read_latent_dim

    dim = read_latent_dim(job.run.folder("train/vae.safetensors"))
    judged = Judged(job.run.root, settings.judge, job.config.seed + 2, job.config.sample, dim)
    judged.draws(job.console)  # fits it, and leaves it where ranks find it
    return judged


def check(job: Job) -> None:
    """Raises what `run` would, before anything of an earlier fine-tuning is deleted."""
    settings = job.config.finetune
    feasible(job, "finetune", settings)
    _augmented(job, Parts(tuple(image_parts(job, "train")), settings.batch_size))


def _augmented(job: Job, real: Parts) -> AugmentedParts | None:
    """A, or none where there is none or training has no use for it."""
    settings = job.config.finetune
    uses = settings.uses
    files = _files(job)
    rows = sum(r for _, r in files)
    used = uses.pixels or uses.adversarial or uses.cycle
    if settings.mixing and used and not rows:
        raise ImpossibleError(f"finetune.mixing = {settings.mixing:g}, but no candidate was kept; leave it out")
    if not rows or not used or settings.mixing == 0:
        return None
    per_step = round(settings.batch_size * (rows / real.rows if settings.mixing is None else settings.mixing))
    if per_step == 0:
        raise ImpossibleError(job.domain.words(_too_few(settings, rows, real.rows)))
    return AugmentedParts(
        tuple(files),
        per_step,
        images=uses.pixels > 0,
        latents=uses.adversarial > 0 or uses.cycle > 0,
        power=settings.lds_weight,
        log_mean=_log_mean(job, [file for file, _ in files], settings.lds_weight) if settings.lds_weight else 0.0,
    )


def _files(job: Job) -> list[tuple[str, int]]:
    """Parts of `augmented/` and their rows."""
    job.run.require("decode")
    return job.run.finished_parts("decode")


def _too_few(settings: Finetune, rows: int, real: int) -> str:
    ratio = (
        f"{rows} images of A and {real} training images" if settings.mixing is None else f"mixing = {settings.mixing:g}"
    )
    return (
        f"finetune.batch_size = {settings.batch_size} with {ratio} gives less than one image of A a step; raise "
        f"finetune.mixing (at least {1 / settings.batch_size:g}) or finetune.batch_size, or set finetune.mixing=0"
    )


def _log_mean(job: Job, files: list[str], power: float) -> float:
    """log of the mean of LDS^power over A."""
    from ldsaug_ray.lds import log_mean_weight

    logs = [(job.run.root / file).read_table(["log_lds"])["log_lds"].to_numpy() for file in files]
    return log_mean_weight(np.concatenate(logs), power)
