"""Stage `train`: prepared items to a VAE.

To resume, run the same command again. `fit` is shared with `finetune`; what a rank does is in `rank.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ldsaug_ray.config import Optimisation
from ldsaug_ray.engines.base import Training
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import ImpossibleError, StorageError
from ldsaug_ray.run.directory import Counts, UnitResult, facts_of
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.run.progress import bar
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.stages.shared.batches import AugmentedParts, Parts
from ldsaug_ray.stages.shared.checkpoints import Checkpoint, Checkpoints
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.pretrained import take_pretrained
from ldsaug_ray.stages.shared.rank import Task, work

STAGE = declare(
    Stage(
        name="train",
        does="train the VAE",
        unit="images",
        needs=("prepare",),
        writes=("train",),
        sections=("vae", "train", "seed"),
        code=lambda config: (config.vae.kind,),
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Train the baseline VAE on the train split, or take a pretrained one, as it is or to be trained further."""
    settings, initial = job.config.train, None
    if job.config.vae.is_pretrained:
        taken = take_pretrained(job)
        if not settings.steps:
            return taken
        initial = "train/vae.safetensors"
    return fit(job, "train", settings, Parts(tuple(image_parts(job, "train")), settings.batch_size), initial=initial)


def check(job: Job) -> None:
    """Raises what `run` would, before anything of an earlier training is deleted."""
    if job.config.train.steps:
        feasible(job, "train", job.config.train)


def feasible(job: Job, stage: str, settings: Optimisation) -> None:
    """Whether these images, this cluster and the perceptual network allow the training.

    Raises:
        ImpossibleError: fewer images than one batch, or a batch that the workers cannot share equally.
        InputError: a perceptual network that cannot be used.
        ResourceError: the cluster lacks what stage.workers asks for.
    """
    rows = sum(n for _, n in image_parts(job, "train"))
    if settings.batch_size > rows:
        raise ImpossibleError(
            f"{stage}.batch_size = {settings.batch_size} is more than the {rows} {job.domain.unit} to train on"
        )
    _workers(job, settings, stage)
    if settings.objective.perceptual.network is not None:
        from ldsaug_ray.models.training.perceptual import load_perceptual

        load_perceptual(settings.objective.perceptual, job.config.data.resolution)


def fit(
    job: Job, stage: str, settings: Optimisation, real: Parts, augmented: AugmentedParts | None = None, **start: Any
) -> Outcome:
    """Train on stored parts and leave `STAGE/vae.safetensors`, `curve.json` and, if there is one, the discriminator.

    Args:
        real: training images.
        augmented: A; none: training images alone.
        start: fields of `Task` that say where to begin and how: initial, initial_discriminator, freeze, uses, judged.

    Raises:
        DivergedError: a loss is not finite; the last checkpoint is kept.
        ResourceError: the cluster lacks what stage.workers asks for.
        StorageError: a checkpoint cannot be written.
    """
    trained = train_on(job, stage, settings, real, augmented, **start)
    final, last, root = trained.final, trained.last, job.run.root
    final.take_weights(root / stage)
    (root / f"{stage}/curve.json").write_bytes((last.folder / "curve.json").read_bytes())
    rows = real.rows + (augmented.rows if augmented is not None else 0)
    began = last.record["facts"]["resumed_from_step"]  # of who saved it: another command, where no step was left to do
    facts = {
        **final.record["facts"],
        "resumed_from_step": trained.resumed if trained.resumed == last.step else began,
        "final": final.record["metrics"],
        "workers": trained.world,
    }
    if augmented is not None:
        facts["augmented_per_step"] = trained.augmented_per_step
    return Outcome(
        Counts(rows, rows),
        facts.pop("digest"),
        {"images_seen": settings.steps * settings.batch_size, **facts},
        (settings.steps - trained.resumed) * settings.batch_size,
        cleanup=Checkpoints(root, stage).delete,  # the optimisers' state is of no use once the stage is complete
    )


@dataclass(frozen=True)
class Trained:
    """The checkpoint whose weights count, and the last; the step that this attempt began at; how work was shared."""

    final: Checkpoint
    last: Checkpoint
    resumed: int
    world: int
    augmented_per_step: int


def train_on(
    job: Job, stage: str, settings: Optimisation, real: Parts, augmented: AugmentedParts | None = None, **start: Any
) -> Trained:
    """Train, or go on from the last checkpoint, to the end or to `pause_at`; arguments and errors as of `fit`."""
    from ldsaug_ray.models import CODECS

    pool, world = _workers(job, settings, stage)
    if augmented is not None and augmented.per_step % world:  # as many of A to each rank
        augmented = replace(augmented, per_step=max(1, round(augmented.per_step / world)) * world)
    alone = settings.workers.count == "auto" and not pool.gpus
    checkpoints = Checkpoints(job.run.root, stage)
    checkpoints.folder.make_folder()
    before = checkpoints.last()
    task = Task(
        stage=stage,
        root=job.run.root,
        settings=settings,
        domain=job.config.domain,
        vae=job.config.vae,
        given=CODECS.get(job.config.vae.kind).given(job.config.data, facts_of(job.run.root)),
        seed=job.config.seed,
        real=real,
        augmented=augmented,
        held_out=tuple(file for file, _ in image_parts(job, "test")),
        threads=0 if alone else pool.threads,
        **start,
    )
    size, last_step = settings.batch_size, task.pause_at or settings.steps
    with bar(job.console, stage, last_step * size, job.domain.unit) as shown:

        def show(step: int, note: str) -> None:
            if not shown.done:
                shown.begin_at(step * size)
            shown.set(step * size, note)

        training = Training(stage, partial(work, task), world, pool, settings.max_failures)
        try:
            job.engine.train(training, show)
        except (KeyboardInterrupt, SystemExit):
            last = checkpoints.last()
            job.console.print(f"{stage}: saved at step {last.step if last else 0}", highlight=False)
            raise
        shown.set(last_step * size)
    last = checkpoints.last()
    final = checkpoints.best() if settings.best_by is not None else last
    if last is None or final is None:
        raise StorageError(f"{stage}: training ended without a checkpoint in {checkpoints.folder.uri}; run it again")
    per_step = 0 if augmented is None else augmented.per_step
    return Trained(final, last, before.step if before else 0, world, per_step)


def _workers(job: Job, settings: Optimisation, stage: str) -> tuple[Pool, int]:
    pool = job.pool(settings.workers, stage)
    return pool, _world(settings, pool, stage)


def _world(settings: Optimisation, pool: Pool, stage: str) -> int:
    """How many workers train: what was asked, or as many GPUs as share the batch equally."""
    if settings.workers.count != "auto":
        if settings.batch_size % pool.count:
            raise ImpossibleError(
                f"{stage}.batch_size = {settings.batch_size} cannot be shared by {pool.count} workers equally"
            )
        return pool.count
    if not pool.gpus:
        return 1  # on CPUs, one worker that uses every core beats several that copy gradients to each other
    return max(n for n in range(1, pool.count + 1) if settings.batch_size % n == 0)
