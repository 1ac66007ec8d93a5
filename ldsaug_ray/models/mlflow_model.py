"""The decoder as an MLflow model: latents float32[N, d] in, a batch out, such as images uint8[N, R, R, 3].

MLflow imports this module by name and hands it the safetensors file, so that nothing is pickled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ldsaug_ray.common.storage import Location
from ldsaug_ray.models.checkpoint import load_vae
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.inference import decode_batch

_BATCH = 64


class Generator:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, vae: Codec):
        self.vae = vae

    def predict(self, latents: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Decode latents [N, d] to a batch."""
        return decode_batch(self.vae, np.asarray(latents, np.float32), _BATCH)


def _load_pyfunc(path: str) -> Generator:
    """MLflow's entry point; `path` is the safetensors file."""
    return Generator(load_vae(Location.of(path)))
