"""Stage `train`: prepared images to a VAE, by Ray Train, streaming from Ray Data.

To resume, run the same command again. `fit` is shared with `finetune`; what a worker does is in `_train_worker.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ldsaug_ray.common.storage import Location, advice
from ldsaug_ray.config import Optimisation
from ldsaug_ray.errors import InputError, StorageError, error_named
from ldsaug_ray.run.directory import CHECKPOINTS, SNAPSHOT, Counts, UnitResult
from ldsaug_ray.run.progress import Bar, bar, repeated
from ldsaug_ray.stages._batches import AugmentedParts, Parts
from ldsaug_ray.stages._beside import Monitor, beside_driver
from ldsaug_ray.stages._job import Job, Pool, pool_for
from ldsaug_ray.stages._outcome import Outcome
from ldsaug_ray.stages._pretrained import take_pretrained
from ldsaug_ray.stages._train_worker import NOT_RESULTS, PROGRESS_SECONDS, Task, work
from ldsaug_ray.stages.encode import image_parts

if TYPE_CHECKING:
    from ray.train import Result


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
        InputError: fewer images than one batch, a batch that the workers cannot share equally, or a network that cannot
            be used.
        ResourceError: the cluster lacks what stage.workers asks for.
    """
    rows = sum(n for _, n in image_parts(job, "train"))
    if settings.batch_size > rows:
        raise InputError(f"{stage}.batch_size = {settings.batch_size} is more than the {rows} images to train on")
    _workers(job, settings, stage)
    if settings.objective.perceptual.network is not None:
        from ldsaug_ray.models.training.perceptual import load_perceptual

        load_perceptual(settings.objective.perceptual, job.config.data.resolution)


def fit(
    job: Job,
    stage: str,
    settings: Optimisation,
    real: Parts,
    augmented: AugmentedParts | None = None,
    **start: Any,
) -> Outcome:
    """Train on stored parts and leave `STAGE/vae.safetensors`, `curve.json` and, if there is one, the discriminator.

    Args:
        job: the invocation.
        stage: folder and name.
        settings: the stage's section.
        real: training images.
        augmented: A; none: training images alone.
        start: fields of `Task` that say where to begin and how: initial, initial_discriminator, freeze, uses.

    Raises:
        DivergedError: a loss is not finite; the last checkpoint is kept.
        ResourceError: the cluster lacks what stage.workers asks for.
        StorageError: a checkpoint cannot be written.
    """
    done = train_on(job, stage, settings, real, augmented, **start)
    told = (done.final / "facts.json").read_json()
    root = job.run.root
    take_weights(done.final, root / stage)
    (root / f"{stage}/curve.json").write_bytes((done.last / "curve.json").read_bytes())
    resumed = (done.last / "facts.json").read_json()["facts"]["resumed_from_step"]
    rows = real.rows + (augmented.rows if augmented is not None else 0)
    facts = {**told["facts"], "resumed_from_step": resumed, "final": told["metrics"], "workers": done.world}
    if augmented is not None:
        facts["augmented_per_step"] = done.augmented_per_step
    return Outcome(
        Counts(rows, rows),
        facts.pop("digest"),
        {"images_seen": settings.steps * settings.batch_size, **facts},
        (settings.steps - resumed) * settings.batch_size,
        cleanup=_storage(job, stage).delete,  # the optimisers' state is of no use once the stage is complete
    )


def take_weights(checkpoint: Location, folder: Location) -> None:
    """Copy what of a checkpoint is a result."""
    for file in checkpoint.files():
        name = file.path[len(checkpoint.path) + 1 :]
        if name not in NOT_RESULTS:
            (folder / name).write_bytes(file.read_bytes())


@dataclass(frozen=True)
class Trained:
    """Where the checkpoints are whose weights count, and the last; and how the work was shared."""

    final: Location
    last: Location
    world: int
    augmented_per_step: int


def _storage(job: Job, stage: str) -> Location:
    """Ray Train's own folder, with the checkpoints."""
    return job.run.root / f"{stage}/{CHECKPOINTS}"


def train_on(
    job: Job, stage: str, settings: Optimisation, real: Parts, augmented: AugmentedParts | None = None, **start: Any
) -> Trained:
    """Train, or go on from the last checkpoint, to the end or to `pause_at`; arguments and errors as of `fit`."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    pool, world = _workers(job, settings, stage)
    if augmented is not None and augmented.per_step % world:  # as many of A to each worker
        augmented = replace(augmented, per_step=max(1, round(augmented.per_step / world)) * world)
    alone = settings.workers.count == "auto" and not pool.gpus
    root = job.run.root
    storage = _storage(job, stage)
    storage.make_folder()
    snapshot = storage / SNAPSHOT
    try:
        _ = snapshot.read_json() if snapshot.exists() else None
    except StorageError as e:
        raise StorageError(
            f"{e}: Ray Train's list of checkpoints was cut off, as when a driver dies while it is saved. Delete "
            f"{storage.uri} to train from the beginning"
        ) from None
    monitor: Any = beside_driver(Monitor)
    task = Task(
        stage=stage,
        root=root,
        storage=storage,
        settings=settings,
        vae=job.config.vae,
        resolution=job.config.data.resolution,
        seed=job.config.seed,
        real=real,
        augmented=augmented,
        held_out=tuple(file for file, _ in image_parts(job, "test")),
        threads=0 if alone else pool.threads,
        gpu=pool.gpus > 0,
        monitor=monitor,
        **start,
    )
    trainer = TorchTrainer(
        work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=world,
            use_gpu=pool.gpus > 0,
            resources_per_worker={
                "CPU": pool.cpus,
                **({"GPU": pool.gpus} if pool.gpus else {}),
                **({"memory": pool.memory} if pool.memory else {}),
            },
        ),
        run_config=RunConfig(
            name="run",  # no timestamp: the same name resumes
            storage_path=storage.path,
            storage_filesystem=None if storage.is_local else storage.fs,
            checkpoint_config=CheckpointConfig(
                num_to_keep=settings.num_to_keep,
                checkpoint_score_attribute=None if settings.best_by is None else "score",
                checkpoint_score_order="min",
            ),
            failure_config=FailureConfig(max_failures=settings.max_failures),
        ),
    )
    images_seen = (task.pause_at or settings.steps) * settings.batch_size
    with bar(job.console, stage, images_seen, "images") as shown, _watch(monitor, shown, settings.batch_size):
        try:
            result = trainer.fit()
        except Exception as e:
            if (failure := ray.get(monitor.failure.remote())) is not None:
                raise error_named(*failure) from None
            # Ray Train wraps what its own copying of checkpoints met
            number = re.search(r"\[Errno (\d+)\]", str(e))
            if number is None:
                raise
            raise StorageError(f"{stage}: cannot write below {storage.uri}: {advice(int(number[1]))}") from e
        failure = ray.get(monitor.failure.remote())
        if failure is not None:
            raise error_named(*failure)
        shown.set(images_seen)
    per_step = 0 if augmented is None else augmented.per_step
    return Trained(*_checkpoints(result, settings, storage), world, per_step)


def _checkpoints(result: Result, settings: Optimisation, storage: Location) -> tuple[Location, Location]:
    """The checkpoint whose weights count (the last, or the best by `best_by`), and the last."""
    last = result.checkpoint
    if last is None:
        raise InputError(f"Ray Train finished without a checkpoint; delete {storage.uri} and run again")
    best = last
    if settings.best_by is not None and result.best_checkpoints:
        best, _ = min(result.best_checkpoints, key=lambda found: found[1]["score"])
    return Location(best.filesystem, best.path, storage.uri), Location(last.filesystem, last.path, storage.uri)


def _workers(job: Job, settings: Optimisation, stage: str) -> tuple[Pool, int]:
    pool = pool_for(job, settings.workers, stage)
    return pool, _world(settings, pool, stage)


def _world(settings: Optimisation, pool: Pool, stage: str) -> int:
    """How many workers train: what was asked, or as many GPUs as share the batch equally."""
    if settings.workers.count != "auto":
        if settings.batch_size % pool.count:
            raise InputError(
                f"{stage}.batch_size = {settings.batch_size} cannot be shared by {pool.count} workers equally"
            )
        return pool.count
    if not pool.gpus:
        return 1  # on CPUs, one worker that uses every core beats several that copy gradients to each other
    return max(n for n in range(1, pool.count + 1) if settings.batch_size % n == 0)


@contextmanager
def _watch(monitor: Any, shown: Bar, batch_size: int) -> Iterator[None]:
    import ray

    begun = False

    def look() -> None:
        nonlocal begun
        try:
            state = ray.get(monitor.get.remote(), timeout=10)
        except ray.exceptions.RayError:
            return  # progress is a courtesy: training goes on without it
        if state is None:
            return
        if not begun:
            shown.begin_at(state[0] * batch_size)
            begun = True
        shown.set(state[0] * batch_size, state[1])

    with repeated(PROGRESS_SECONDS, look):
        yield
