"""One rank of a training: restore, stream, step, checkpoint, wherever the engine runs it.

What a step computes is `models.Trainer`'s; this file moves data, checkpoints and progress.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import CommonVae, Optimisation, Uses, Vae
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.engines.base import Asked, Rank, clear_memory_errors
from ldsaug_ray.engines.threads import keep_freed_memory, limit_threads
from ldsaug_ray.errors import DivergedError
from ldsaug_ray.models.training.curve import LossCurve, Means
from ldsaug_ray.stages.shared.batches import AugmentedParts, Parts, StepBatch, step_batches
from ldsaug_ray.stages.shared.checkpoints import Checkpoints
from ldsaug_ray.stages.shared.clock import Clock, steps_between_looks
from ldsaug_ray.stages.shared.prior import Judged

if TYPE_CHECKING:
    from ldsaug_ray.models import Augmented, Codec, Trainer

PROGRESS_SECONDS = 0.5
HELD_OUT_IMAGES = 256
SMALL_FLOP = 2e9  # of a step: below, one thread is as fast as two (docs/benchmarks.md)


@dataclass(frozen=True)
class Task:
    """What every rank is told.

    Attributes:
        vae: section `vae`; given: what the model is made for beside it.
        real: training items.
        augmented: A and how much of it; none: training images alone.
        held_out: parts with test images, for the curve.
        threads: of torch, at most; 0: every core.
        initial: weights to start from, below the run directory; none: new ones.
        initial_discriminator: likewise.
        freeze: the part that is not trained.
        uses: what A is used for.
        judged: what the discriminator judges beside reconstructions; none: images decoded from N(0, I).
        pause_at: step after which to stop, with a checkpoint; none: the last one.
    """

    stage: str
    root: Location
    settings: Optimisation
    domain: str
    vae: CommonVae
    given: Mapping[str, Any]
    seed: int
    real: Parts
    augmented: AugmentedParts | None
    held_out: tuple[str, ...]
    threads: int
    initial: str | None = None
    initial_discriminator: str | None = None
    freeze: Literal["none", "encoder", "decoder"] = "none"
    uses: Uses | None = None
    judged: Judged | None = None
    pause_at: int | None = None


def work(task: Task, rank: Rank) -> None:
    """A rank's whole life."""
    with clear_memory_errors(task.stage):
        _Training(task, rank).train()


def threads_of(task: Task, world: int) -> int:
    """Threads of a rank; one where a step is small. Threads meet after each operation, and beside a busy program the
    other one has been put aside: small steps gain nothing from several, and lose most of their speed to that."""
    from ldsaug_ray.models import CODECS

    flop = CODECS.get(task.vae.kind).flop(task.vae, task.given, task.settings.batch_size // world)
    small = flop < SMALL_FLOP
    return 1 if small else task.threads or os.cpu_count() or 1


def of_the_checkpoints(error: DivergedError, storage: Location, last: int | None) -> DivergedError:
    """The error, and what is left to go on from."""
    if last is None:
        return DivergedError(f"{error}. There was no checkpoint yet")
    return DivergedError(
        f"{error}. The checkpoint of step {last} is kept in {storage.uri}, until the stage runs with other "
        "settings: that starts it anew"
    )


class _Training:
    """The state of one rank."""

    def __init__(self, task: Task, rank: Rank):
        self.task, self.settings, self.rank = task, task.settings, rank
        limit_threads(threads_of(task, rank.world))
        keep_freed_memory()
        self.trainer = self._trainer()
        self.curve, self.since_checkpoint = LossCurve(), Means()
        self.checkpoints = Checkpoints(task.root, task.stage)
        last = self.checkpoints.last()
        # the first rank's: where ranks are on several machines, lists of a shared file system may lag on some
        step = rank.agree(None if last is None else last.step)
        if step is not None:
            from ldsaug_ray.models.training import state

            with self.checkpoints.of(step).opened() as folder:
                state.restore(self.trainer, folder)
                progress = json.loads((folder / "progress.json").read_text())
            self.curve, self.since_checkpoint = LossCurve(progress), Means(progress.get("since_checkpoint"))
        self.resumed_from = self.trainer.step
        self.last_checkpoint = self.trainer.step or None
        self.held_out = self._held_out() if rank.number == 0 else None
        self.clock = Clock()

    def _trainer(self) -> Trainer:
        from ldsaug_ray.models import CODECS, Trainer, load_discriminator, load_vae

        task, adversarial = self.task, self.settings.objective.adversarial
        vae: Codec
        if task.initial is None:
            vae = CODECS.get(task.vae.kind).build(task.vae, task.given, task.seed)
        else:
            vae = load_vae(task.root / task.initial, expect=(task.vae, task.given))
        discriminator = None  # the trainer makes a new one where it needs one
        if adversarial.weight and task.initial_discriminator is not None:
            assert isinstance(task.vae, Vae)  # others have none
            file = task.root / task.initial_discriminator
            discriminator = load_discriminator(file, expect=(task.vae, task.given["resolution"], adversarial))
        return Trainer(
            vae,
            self.settings,
            task.seed,
            self.rank.device,
            rank=self.rank.number,
            world=self.rank.world,
            discriminator=discriminator,
            freeze=task.freeze,
            uses=task.uses,
            fixed_centre=task.initial is not None,
        )

    def train(self) -> None:
        """Take the steps that are left, or those until all ranks are asked to stop."""
        trainer, settings, task = self.trainer, self.settings, self.task
        last = settings.steps if task.pause_at is None else task.pause_at
        if trainer.step >= last:  # killed after the last checkpoint, before the manifest
            return
        batches = step_batches(
            task.root,
            task.real,
            task.augmented,
            task.judged,
            range(trainer.step, last),
            self.rank,
            seed=task.seed,
            shuffle_parts=settings.shuffle_parts,
            domain=task.domain,
            blank=trainer.model.blank(1),
        )
        counted, cpu, images = time.monotonic(), time.process_time(), 0
        last_note = -PROGRESS_SECONDS
        looked, apart, next_look = counted, 1, trainer.step + 1
        for batch in self.clock.timed(batches):
            try:
                terms = trainer.train_step(batch.images, _augmented(batch), batch.judged)
            except DivergedError as e:
                raise of_the_checkpoints(e, self.checkpoints.folder, self.last_checkpoint) from None
            step = trainer.step
            self.curve.add(terms)
            self.since_checkpoint.add(terms)
            if step == 1 or step % settings.log_every == 0 or step == settings.steps:
                self.curve.close_point(step)
            images += len(batch.images) + (0 if batch.augmented is None else len(batch.augmented["weight"]))
            now = time.monotonic()
            if self.rank.number == 0 and now > last_note + PROGRESS_SECONDS:
                last_note = now
                self.rank.tell(step, f"loss {terms['loss']:.4f}")
            if now > counted + PROGRESS_SECONDS or step == last:
                spent = time.process_time()
                self.rank.count(rows=images, seconds=now - counted, cpu_seconds=spent - cpu)
                counted, cpu, images = now, spent, 0
            asked: Asked | None = None
            if step == next_look:
                asked = self.rank.asked()
                now = time.monotonic()
                # the first rank's clock says when: all must look after the same step
                apart = self.rank.agree(steps_between_looks(apart, now - looked)) or 1
                looked, next_look = now, step + apart
            due = step % settings.checkpoint_every == 0 or step == last
            if due or asked is not None:
                with self.clock.paused():
                    self.checkpoint(between=not due)
            if asked == "stop":
                return

    def checkpoint(self, *, between: bool = False) -> None:
        """Keep the state; every rank calls it equally often, the first one's files count.

        Args:
            between: not one of those that the settings ask for. It leaves no trace in curve and means, and its weights
                are no candidate for the best, so that what follows is as if it were not there.
        """
        from ldsaug_ray.models import save_discriminator, save_vae, weights_digest
        from ldsaug_ray.models.training import state

        trainer, step = self.trainer, self.trainer.step
        metrics = {} if between else self.since_checkpoint.take()
        if self.held_out is not None and not between:
            try:
                metrics["held_out_reconstruction"] = self._held_out_error()
            except DivergedError as e:
                diverged = DivergedError(f"training diverged at step {step}: {e}; lower learning_rate")
                raise of_the_checkpoints(diverged, self.checkpoints.folder, self.last_checkpoint) from None
            self.curve.note(step, {"held_out_reconstruction": metrics["held_out_reconstruction"]})
        self.last_checkpoint = step
        if self.rank.number == 0:
            facts = {
                "digest": weights_digest(trainer.averaged),
                "steps": step,
                "resumed_from_step": self.resumed_from,
                **self.clock.facts(self.settings.batch_size),
            }
            record = {"facts": facts, "metrics": metrics}
            if self.settings.best_by is not None and not between:
                record["score"] = metrics.get(self.settings.best_by, math.inf)
            with tempfile.TemporaryDirectory(prefix="ldsaug-") as name:
                folder = Location.of(name)
                state.save(trainer, name)
                save_vae(folder / "vae.safetensors", trainer.averaged, {"step": step})
                if trainer.discriminator is not None:
                    save_discriminator(folder / "discriminator.safetensors", trainer.discriminator)
                (folder / "progress.json").write_json(
                    {**self.curve.state(), "since_checkpoint": self.since_checkpoint.sums}
                )
                (folder / "curve.json").write_json(self.curve.points)
                self.checkpoints.save(step, Path(name), record)
            self.checkpoints.prune(self.settings.num_to_keep, scored=self.settings.best_by is not None)
        self.rank.meet()

    def _held_out(self) -> np.ndarray | None:
        found: list[np.ndarray] = []
        domain = DOMAINS.get(self.task.domain)
        for file in self.task.held_out:
            if sum(map(len, found)) < HELD_OUT_IMAGES:
                found.append(domain.unpack((self.task.root / file).read_table([domain.column])))
        return np.concatenate(found)[:HELD_OUT_IMAGES] if found else None

    def _held_out_error(self) -> float:
        """Mean reconstruction error of held-out items, by the averaged weights."""
        assert self.held_out is not None
        return round(self.trainer.averaged.held_out_error(self.held_out, self.settings.objective), 6)


def _augmented(batch: StepBatch) -> Augmented | None:
    from ldsaug_ray.models import Augmented

    found = batch.augmented
    return None if found is None else Augmented(found.get("image"), found.get("z"), found["weight"])
