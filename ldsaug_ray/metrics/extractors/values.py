"""Rows of numbers as their own features, each column in units of its spread over the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork


class Values(FeatureNetwork):
    """As many features as columns."""

    domain: ClassVar = "vectors"

    def tensor(self, batch: NDArray[Any], facts: Mapping[str, Any]) -> Tensor:
        """Rows in units of their columns' spread, where a run has learned it; of rows alone they are as they are."""
        if not facts:
            return torch.from_numpy(np.ascontiguousarray(batch))
        spread = np.asarray(facts["spread"])
        if batch.shape[1] != len(spread):
            raise InputError(f"rows of {batch.shape[1]} numbers cannot be compared with rows of {len(spread)}")
        unit = np.where(spread > 0, spread, 1.0)
        return torch.from_numpy(((batch - np.asarray(facts["mean"])) / unit).astype(np.float32))

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        return pixels


EXTRACTORS.add("values", Values())
