"""The codec `mlp`: a small VAE for rows of a table, whose latents are fewer and rounder than the columns."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ldsaug_ray.config import Objective
from ldsaug_ray.models.training.losses import reconstruction_error
from ldsaug_ray.models.vectors.identity import Identity

if TYPE_CHECKING:
    from ldsaug_ray.models.codecs.vectors import MlpVae


class Mlp(Identity):
    """Two perceptrons between columns in units of their spread and q(z|x); constant columns stay what they are."""

    def __init__(self, settings: MlpVae, given: Mapping[str, Any]) -> None:
        super().__init__(settings, given)
        columns, d = self.columns, settings.latent_dim
        self.latent_dim = d
        self.encoder = _perceptron(columns, settings.width, settings.layers, 2 * d)
        self.decoder = _perceptron(d, settings.width, settings.layers, columns)

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(μ, log σ²), both float32[B, d]."""
        mu, logvar = self.encoder((items - self.mean) / self.spread).chunk(2, 1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Rows float32[B, D]."""
        rows: Tensor = self.decoder(z)
        return torch.where(self.varies, rows * self.spread + self.mean, self.mean)

    def error(self, output: Tensor, items: Tensor, objective: Objective) -> Tensor:
        """Distance in units of the columns' spread, as objective.reconstruction has it, in the mean over columns."""
        return reconstruction_error(output / self.spread, items / self.spread, objective.reconstruction)


def _perceptron(first: int, width: int, layers: int, last: int) -> nn.Sequential:
    sides = [first, *[width] * layers]
    hidden = [part for a, b in pairwise(sides) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*hidden, nn.Linear(sides[-1], last))
