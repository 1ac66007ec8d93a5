"""What FID is defined with: clean-fid's variant (Parmar et al. 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork, read_weights
from ldsaug_ray.metrics.weights import INCEPTION
from ldsaug_ray.models.torchscript import load_torchscript


class Inception(FeatureNetwork):
    """The 2,048 pooled features of StyleGAN's TorchScript Inception, fed as clean-fid does in its mode `clean`."""

    side: ClassVar = 299

    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        """From the user's cache, downloaded there once, or the same file elsewhere."""
        path = Path(where).expanduser() if where else INCEPTION.ready()
        if where and (problem := INCEPTION.problem(path)):
            raise InputError(f"extractor inception: {problem}; the file is {INCEPTION.name} of {INCEPTION.url}")
        return load_torchscript(read_weights(path), str(path)), INCEPTION.sha256

    def stamp(self, spec: str, where: str) -> str:
        """There is one file."""
        return INCEPTION.sha256

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        layers: Any = network.layers
        features: Tensor = layers((pixels - 128) / 128)
        return features.reshape(len(pixels), -1)


EXTRACTORS.add("inception", Inception())
