"""The codec `identity`: a latent is the row itself, or the row in units of its columns' spread. Nothing to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.config import CommonVae, Objective
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.training.losses import reconstruction_error


class Identity(Codec):
    """z = (x − mean) / spread, and back; constant columns are 0 in z."""

    unit = "rows"
    columns: int
    mean: Tensor
    spread: Tensor
    varies: Tensor

    def __init__(self, settings: CommonVae, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings, self.given = settings, dict(given)
        self.encoder, self.decoder = nn.Identity(), nn.Identity()
        mean = torch.tensor(given["mean"], dtype=torch.float32)
        spread = torch.tensor(given["spread"], dtype=torch.float32)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.register_buffer("varies", spread > 0, persistent=False)
        self.columns = self.latent_dim = len(mean)

    def blank(self, n: int) -> NDArray[np.float32]:
        """As of `Codec`: float32[n, D]."""
        return np.empty((n, self.columns), np.float32)

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows float32[B, D] in units of their spread."""
        return (items - self.mean) / self.spread, None

    def decode(self, z: Tensor) -> Tensor:
        """And back."""
        return z * self.spread + self.mean

    def error(self, output: Tensor, items: Tensor, objective: Objective) -> Tensor:
        """Distance in units of the columns' spread, as objective.reconstruction has it, in the mean over columns."""
        return reconstruction_error(output / self.spread, items / self.spread, objective.reconstruction)
