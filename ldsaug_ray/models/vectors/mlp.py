"""The codec `mlp`: a small VAE for rows of a table, whose latents are fewer and rounder than the columns.

Categories are 1 of K on both sides: cross-entropy in nats, and decoded is the likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ldsaug_ray.config import Objective
from ldsaug_ray.models.training.losses import reconstruction_error
from ldsaug_ray.models.vectors.identity import Identity

if TYPE_CHECKING:
    from ldsaug_ray.models.codecs.vectors import MlpVae


class Mlp(Identity):
    """Two perceptrons between columns in units of their spread and q(z|x); constant columns stay what they are.

    Attributes:
        numbers: columns of numbers; those behind them are categories.
        categories: of each where it begins and ends.
    """

    def __init__(self, settings: MlpVae, given: Mapping[str, Any]) -> None:
        super().__init__(settings, given)
        columns, d = self.columns, settings.latent_dim
        sizes = [len(values) for values in given.get("categories", {}).values()]
        self.numbers = columns - sum(sizes)
        self.categories = list(pairwise(accumulate(sizes, initial=self.numbers)))
        self.mean[self.numbers :], self.spread[self.numbers :], self.varies[self.numbers :] = 0.0, 1.0, True
        self.latent_dim = d
        self.encoder = _perceptron(columns, settings.width, settings.layers, 2 * d)
        self.decoder = _perceptron(d, settings.width, settings.layers, columns)

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, log σ²), both float32[B, d]."""
        mu, logvar = self.encoder((items - self.mean) / self.spread).chunk(2, 1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Rows float32[B, D]; of categories the logits."""
        rows: Tensor = self.decoder(z)
        return torch.where(self.varies, rows * self.spread + self.mean, self.mean)

    def error(self, output: Tensor, items: Tensor, objective: Objective) -> Tensor:
        """Distance in units of the columns' spread, as objective.reconstruction has it, and the categories'
        cross-entropy, in the mean over columns."""
        n, unit = self.numbers, self.spread[: self.numbers]
        numbers = reconstruction_error(output[:, :n] / unit, items[:, :n] / unit, objective.reconstruction)
        total = [n * numbers] if n else []
        total += [F.cross_entropy(output[:, a:b], items[:, a:b], reduction="none") for a, b in self.categories]
        return torch.stack(total).sum(0) / self.columns

    def to_batch(self, output: Tensor) -> NDArray[np.float32]:
        """As of `Codec`: 1 for the likeliest category, 0 for the others."""
        rows = super().to_batch(output).copy()
        for a, b in self.categories:
            rows[:, a:b] = np.eye(b - a, dtype=np.float32)[rows[:, a:b].argmax(1)]
        return rows


def _perceptron(first: int, width: int, layers: int, last: int) -> nn.Sequential:
    sides = [first, *[width] * layers]
    hidden = [part for a, b in pairwise(sides) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*hidden, nn.Linear(sides[-1], last))
