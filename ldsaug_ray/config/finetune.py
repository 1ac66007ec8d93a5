"""Section `finetune`: further training on the training images and A."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.common.registry import room_of
from ldsaug_ray.config.base import Positive, Section, added
from ldsaug_ray.config.train import Optimisation


class Uses(Section):
    """What A is used for; uses combine (README.md has what each does)."""

    pixels: float = Field(1.0, ge=0, description="weight with which decoded images join the training set (the paper)")
    adversarial: float = Field(
        0.0, ge=0, description="weight with which the discriminator judges decode(z_A): no pixel target"
    )
    cycle: float = Field(0.0, ge=0, description="weight of ||encode(decode(z_A)) - z_A||^2 / d")
    prior: bool = Field(False, description="`sample` fits its density to the latents and A")


class Finetune(Optimisation):
    """Further training on train + A, from the baseline's weights. Every arm sees the same training images."""

    steps: Positive = Field(50_000, description="optimiser steps")
    learning_rate: float = Field(1e-3, gt=0, description="Adam step size")
    mixing: float | None = Field(
        None, ge=0, description="images of A beside each training image of a batch; none: as many as in train + A"
    )
    lds_weight: float = Field(
        0.0, ge=0, description="images of A weigh LDS^lds_weight in the loss, 1 in the mean; 0: all the same"
    )
    freeze: Literal["none", "encoder", "decoder"] = Field("none", description="what is not trained further")
    uses: Uses = Uses()
    judge: str = added(
        "normal",
        description="what the discriminator judges beside reconstructions, with objective.adversarial.samples: images "
        "decoded from a prior of `sample`, fitted to the baseline's latents (normal, mixture, kde or a path of your "
        "own, with the settings of section sample), or a: from A's latents. What will be drawn should be judged",
    )

    @field_validator("judge")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if value == "a" else str(room_of("models.priors").PRIORS.check(value))

    @model_validator(mode="after")
    def _judges_samples(self) -> Finetune:
        adversarial = self.objective.adversarial
        if self.judge != "normal" and not (adversarial.weight and adversarial.samples):
            raise ValueError(
                f"judge = {self.judge} needs a discriminator that judges samples; set objective.adversarial.weight and "
                "objective.adversarial.samples above 0"
            )
        return self

    @model_validator(mode="after")
    def _has_a_judge(self) -> Finetune:
        if self.uses.adversarial and not self.objective.adversarial.weight:
            raise ValueError(
                "uses.adversarial needs a discriminator; set objective.adversarial.weight above 0, or this to 0"
            )
        return self
