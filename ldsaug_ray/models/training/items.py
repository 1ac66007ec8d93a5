"""A step of a codec that brings its own loss: of any but images (`batch.py`, `objective.py`)."""

from __future__ import annotations

import numpy as np
import torch

from ldsaug_ray.config import Objective, Uses
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models.codec import Array, Codec
from ldsaug_ray.models.training.batch import Augmented
from ldsaug_ray.models.training.objective import Pass
from ldsaug_ray.models.training.workers import mean_over_workers


def pass_of(
    model: Codec,
    rows: Array,
    augmented: Augmented | None,
    uses: Uses | None,
    objective: Objective,
    step: int,
    world: int,
    generator: torch.Generator,
) -> Pass:
    """The loss of training items, and of A's as further ones: with n = B + pixels · Σ weight, in the mean over workers,
    a training item weighs 1/n, one of A pixels · weight / n.

    Raises:
        InputError: another dtype or shape, or A without its items.
    """
    share = uses.pixels if uses is not None else 0.0
    batches, weights = [rows], [np.ones(len(rows), np.float32)]
    if augmented is not None and share:
        if augmented.images is None:
            raise InputError(f"uses.pixels needs the {model.unit} of A")
        batches.append(np.asarray(augmented.images))
        weights.append(share * np.asarray(augmented.weight, np.float32))
    for batch in batches:
        model.check(batch)
    weight = torch.from_numpy(np.concatenate(weights)).to(model.device)
    (n,) = mean_over_workers([weight.sum()], world)
    items = model.to_tensor(np.concatenate(batches)).to(model.device)
    terms = model.step_loss(items, weight / n, objective, step, generator)
    return Pass(terms.pop("loss"), terms, torch.zeros(1, model.latent_dim, device=model.device), None)


def check(objective: Objective, uses: Uses | None) -> None:
    """Raise ConfigError where settings ask for what only images have."""
    wrong = [
        ("objective.adversarial.weight", objective.adversarial.weight, 0),
        ("objective.perceptual.network", objective.perceptual.network, "null"),
        ("finetune.uses.adversarial", uses and uses.adversarial, 0),
        ("finetune.uses.cycle", uses and uses.cycle, 0),
    ]
    for name, value, instead in wrong:
        if value:
            raise ConfigError(f"{name} = {value}: only codecs of images have it; set it to {instead}")
