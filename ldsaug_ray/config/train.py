"""Section `train`, and what it shares with `finetune`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.config.base import Positive, Section, how, since
from ldsaug_ray.config.objective import Objective
from ldsaug_ray.config.workers import Ranks


class Optimisation(Section):
    """What `train` and `finetune` share. To resume, run the same command again."""

    steps: Positive = Field(description="optimiser steps")
    batch_size: Positive = Field(32, description="training images per step over all workers")
    learning_rate: float = Field(2e-3, gt=0, description="Adam step size (layers have equalised learning rates)")
    adam_betas: tuple[float, float] = Field((0.0, 0.99), description="Adam's moments; StyleGAN2 uses 0, 0.99")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (AdamW)")
    ema_half_life: int = Field(
        10_000,
        ge=0,
        description="images over which the averaged weights, which the stage gives, forget half; shorter in the first "
        "twentieth of as many; 0: the last weights",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of activations; auto: bfloat16 on GPUs that have it, else float32. Weights are float32"
    )
    compile: bool = since(False, description="torch.compile the encoder and decoder (minutes at the start)")
    gradient_clip: float | None = Field(None, gt=0, description="largest gradient norm; none: not clipped")
    horizontal_flip: bool = Field(True, description="mirror half of the training images")
    objective: Objective = Objective()
    checkpoint_every: Positive = how(
        1000,
        description="steps between checkpoints: what a crash can cost at most; a training told to stop saves first",
    )
    num_to_keep: Positive = how(2, description="checkpoints kept while training")
    best_by: Literal["loss", "reconstruction", "perceptual", "held_out_reconstruction"] | None = Field(
        None,
        description="give the checkpoint where this term, in the mean since the one before, is smallest; "
        "held_out_reconstruction: the averaged weights' pixel loss on test images; none: the last checkpoint",
    )
    log_every: Positive = how(50, description="steps between points of the loss curve")
    max_failures: int = how(3, ge=0, description="worker or node losses to survive before giving up")
    shuffle_parts: Positive = Field(4, description="stored parts mixed in memory at a time when shuffling")
    workers: Ranks = Ranks()

    @field_validator("adam_betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= b < 1 for b in value):
            raise ValueError("both must lie in [0, 1)")
        return value

    @model_validator(mode="after")
    def _has_its_term(self) -> Optimisation:
        perceptual = self.objective.perceptual
        if self.best_by == "perceptual":
            if perceptual.network is None or not perceptual.weight:
                raise ValueError("best_by: perceptual needs objective.perceptual.network, with a weight above 0")
            if perceptual.every > self.checkpoint_every:
                raise ValueError(
                    f"best_by: perceptual needs a value for every checkpoint; objective.perceptual.every = "
                    f"{perceptual.every} is more than checkpoint_every = {self.checkpoint_every}"
                )
        return self


class Train(Optimisation):
    """Training of the baseline VAE."""

    steps: int = Field(
        100_000,
        ge=0,
        description="optimiser steps; 0, the default of pretrained autoencoders, takes them as they are",
    )
