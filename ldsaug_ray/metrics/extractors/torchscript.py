"""Any network in a TorchScript file that takes pixels, or batches of another domain."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ldsaug_ray.metrics.extractors.base import FeatureNetwork, read_weights
from ldsaug_ray.models.torchscript import load_torchscript

FILES = (".pt", ".pth", ".ts", ".torchscript")


class TorchScript(FeatureNetwork):
    """Any TorchScript file whose forward takes float32[N, 3, H, W], RGB in 0..255, to [N, C]; of another domain,
    batches as they are.
    """

    domain: ClassVar = ""

    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        """The file that `spec` names."""
        data = read_weights(Path(spec))
        return load_torchscript(data, spec), hashlib.sha256(data).hexdigest()

    def stamp(self, spec: str, where: str) -> str:
        return hashlib.sha256(read_weights(Path(spec))).hexdigest()

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        features: Tensor = network(pixels)
        return features
