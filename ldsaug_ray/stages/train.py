"""Stage `train`: prepared images to a VAE, by Ray Train, streaming from Ray Data.

To resume, run the same command again. `fit` is shared with `finetune`. What a step computes is `vae.Trainer`'s; this
file moves data, checkpoints and progress.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import Optimisation
from ldsaug_ray.errors import InputError, LdsaugError, StorageError, error_named
from ldsaug_ray.images.stream import Chunk, read_chunk, training_chunks
from ldsaug_ray.images.tables import image_array
from ldsaug_ray.progress import Bar, bar
from ldsaug_ray.rundir import Counts, UnitResult
from ldsaug_ray.stages._job import Job, Pool, cluster_resources, limit_threads, pool_of
from ldsaug_ray.stages._outcome import Outcome
from ldsaug_ray.stages._units import one_block_each
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.storage import Location, advice

if TYPE_CHECKING:
    from ldsaug_ray.vae import Trainer

_POLL_SECONDS = 0.5


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Train the baseline VAE on the train split."""
    return fit(job, "train", job.config.train, image_parts(job, "train"), initial=None)


def fit(job: Job, stage: str, settings: Optimisation, parts: Sequence[tuple[str, int]], initial: str | None) -> Outcome:
    """Train on stored parts and leave `STAGE/vae.safetensors` and `STAGE/curve.json`.

    Args:
        job: the invocation.
        stage: folder and name.
        settings: the stage's section.
        parts: (file below the run directory, rows).
        initial: weights to start from; none: a new model.

    Raises:
        InputError: fewer images than one batch, or a batch that the workers cannot share equally.
        DivergedError: a loss is not finite; checkpoints from before are kept.
        ResourceError: the cluster lacks what stage.workers asks for.
        StorageError: a checkpoint cannot be written.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    rows = sum(r for _, r in parts)
    pool = pool_of(settings.workers, stage, cluster_resources())
    if settings.batch_size > rows:
        raise InputError(f"{stage}.batch_size = {settings.batch_size} is more than the {rows} images to train on")
    world = _world(settings, pool, stage)
    alone = settings.workers.count == "auto" and not pool.gpus
    threads = 0 if alone else pool.threads  # 0: every core
    root = job.run.root
    storage = root / f"{stage}/ray"
    storage.make_folder()
    monitor: Any = ray.remote(num_cpus=0)(_Monitor).remote()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "root": root,
            "stage": stage,
            "parts": list(parts),
            "settings": settings,
            "vae": job.config.vae,
            "resolution": job.config.data.resolution,
            "seed": job.config.seed,
            "initial": initial,
            "threads": threads,
            "gpu": pool.gpus > 0,
            "monitor": monitor,
        },
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
            checkpoint_config=CheckpointConfig(num_to_keep=settings.num_to_keep),
            failure_config=FailureConfig(max_failures=settings.max_failures),
        ),
    )
    images_seen = settings.steps * settings.batch_size
    with bar(job.console, stage, images_seen, "images") as shown, _watch(monitor, shown, settings.batch_size):
        try:
            result = trainer.fit()
        except Exception as e:  # Ray Train wraps what its own copying of checkpoints met
            number = re.search(r"\[Errno (\d+)\]", str(e))
            if number is None:
                raise
            raise StorageError(f"{stage}: cannot write below {storage.uri}: {advice(int(number[1]))}") from e
        failure = ray.get(monitor.failure.remote())
        if failure is not None:
            raise error_named(*failure)
        shown.set(images_seen)
    if result.checkpoint is None:
        raise InputError(f"{stage}: Ray Train finished without a checkpoint; delete {storage.uri} and run again")
    final = Location(result.checkpoint.filesystem, result.checkpoint.path, storage.uri)
    for name in ("vae.safetensors", "curve.json"):
        (root / f"{stage}/{name}").write_bytes((final / name).read_bytes())
    facts = (final / "facts.json").read_json()
    storage.delete()  # the optimiser's state is of no use once the stage is complete
    counts = Counts(rows, rows)
    processed = (settings.steps - facts["resumed_from_step"]) * settings.batch_size
    return Outcome(counts, facts.pop("digest"), {"images_seen": images_seen, "workers": world, **facts}, processed)


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


class _Monitor:
    """A place where workers leave what the driver should know: the step, or an error meant for the user."""

    def __init__(self) -> None:
        self.state: tuple[int, str] | None = None
        self.error: tuple[str, str] | None = None

    def fail(self, kind: str, message: str) -> None:
        """Leave an error; the first one counts."""
        self.error = self.error or (kind, message)

    def failure(self) -> tuple[str, str] | None:
        """The error that was left, if any."""
        return self.error

    def set(self, step: int, note: str) -> None:
        """Leave the step reached and a remark."""
        self.state = (step, note)

    def get(self) -> tuple[int, str] | None:
        """What was left last; None before training begins."""
        return self.state


@contextmanager
def _watch(monitor: Any, shown: Bar, batch_size: int) -> Iterator[None]:
    import ray

    stop = threading.Event()

    def poll() -> None:
        begun = False
        while not stop.wait(_POLL_SECONDS):
            try:
                state = ray.get(monitor.get.remote(), timeout=10)
            except ray.exceptions.RayError:
                continue  # progress is a courtesy: training goes on without it
            if state is None:
                continue
            if not begun:
                shown.begin_at(state[0] * batch_size)
                begun = True
            shown.set(state[0] * batch_size, state[1])

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _worker(config: dict[str, Any]) -> None:
    """One rank of the training. An error meant for the user ends it: trying again would only meet it again."""
    import ray

    try:
        _train(config)
    except LdsaugError as e:
        ray.get(config["monitor"].fail.remote(type(e).__name__, str(e)))


def _train(config: dict[str, Any]) -> None:
    """Restore, stream, step, checkpoint."""
    import ray.train
    import ray.train.torch

    from ldsaug_ray.stages._job import quieten_data
    from ldsaug_ray.vae import Trainer, build_vae, load_vae

    settings: Optimisation = config["settings"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    limit_threads(config["threads"] or os.cpu_count() or 1)
    quieten_data(False)
    if config["initial"] is not None:
        vae = load_vae(config["root"] / config["initial"], expect=(config["vae"], config["resolution"]))
    else:
        vae = build_vae(config["vae"], config["resolution"], config["seed"])
    device = ray.train.torch.get_device() if config["gpu"] else "cpu"
    trainer = Trainer(vae, settings, config["seed"], device, rank=rank, world=world)
    curve: list[dict[str, float]] = []
    resumed = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.restore(folder)
            curve = json.loads((Path(folder) / "curve.json").read_text())
        resumed = trainer.step
    if trainer.step >= settings.steps:  # killed after the last checkpoint, before the manifest
        _report(trainer, curve, rank, resumed)
        return
    share = settings.batch_size // world
    if rank == 0:
        config["monitor"].set.remote(trainer.step, "")
    for images in _batches(config, trainer.step * share, settings.steps * share, share, rank, world):
        terms = trainer.train_step(images)
        step = trainer.step
        if step == 1 or step % settings.log_every == 0 or step == settings.steps:
            curve.append({"step": step, **{k: round(v, 6) for k, v in terms.items()}})
        if rank == 0 and step % 5 == 0:
            config["monitor"].set.remote(step, f"loss {terms['loss']:.4f}")
        if step % settings.checkpoint_every == 0 or step == settings.steps:
            _report(trainer, curve, rank, resumed)


def _report(trainer: Trainer, curve: list[dict[str, float]], rank: int, resumed: int) -> None:
    """Checkpoint; every rank calls it equally often, the first one's files count."""
    import ray.train

    from ldsaug_ray.vae import save_vae, weights_digest

    metrics = dict(curve[-1]) if curve else {"step": float(trainer.step)}
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(folder)
        save_vae(Location.of(folder) / "vae.safetensors", trainer.model, {"step": trainer.step})
        (Path(folder) / "curve.json").write_text(json.dumps(curve))
        facts = {"digest": weights_digest(trainer.model), "steps": trainer.step, "resumed_from_step": resumed}
        facts["final"] = {k: v for k, v in metrics.items() if k != "step"}
        (Path(folder) / "facts.json").write_text(json.dumps(facts))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _batches(config: dict[str, Any], start: int, stop: int, size: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """Batches uint8[size, H, W, 3] of this rank's stream from row `start` on; Ray Data reads ahead."""
    import ray.data

    settings: Optimisation = config["settings"]
    files = [config["root"] / name for name, _ in config["parts"]]
    chunks = list(
        training_chunks(
            [rows for _, rows in config["parts"]],
            seed=config["seed"],
            rank=rank,
            world=world,
            shuffle_parts=settings.shuffle_parts,
            start=start,
            stop=stop,
        )
    )
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # the stream's order is what makes a resumed run the same run
    data = one_block_each([{"chunk": n} for n in range(len(chunks))]).map_batches(
        _ReadChunk,
        fn_constructor_args=(chunks, files, config["seed"], rank, world),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,  # must not wait for the CPUs that training holds
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    left = stop - start
    for batch in data.iter_batches(batch_size=size, batch_format="pyarrow", prefetch_batches=2):
        images = image_array(batch)[:left]
        left -= len(images)
        if len(images) == size:
            yield images
        if left <= 0:
            return


class _ReadChunk:
    """A chunk's number to its images, as a table."""

    def __init__(self, chunks: Sequence[Chunk], files: Sequence[Location], seed: int, rank: int, world: int):
        self.chunks, self.files, self.seed, self.rank, self.world = chunks, files, seed, rank, world

    def __call__(self, table: pa.Table) -> pa.Table:
        chunk = self.chunks[table["chunk"][0].as_py()]
        images = read_chunk(chunk, self.files, seed=self.seed, rank=self.rank, world=self.world)
        flat = np.ascontiguousarray(images).reshape(len(images), -1)
        buffers = [None, pa.py_buffer(flat)]
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(flat.shape[1]), len(flat), buffers)
        return pa.table({"image": column})
