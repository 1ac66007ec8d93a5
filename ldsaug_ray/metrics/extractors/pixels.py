"""The pixels themselves, averaged to 8 x 8: no network, nothing to download. They tell where brightness and colour are,
not what is shown: enough for digits on black, too little for photographs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork

SIDE = 8


class Pixels(FeatureNetwork):
    """192 features: means of red, green and blue in 8 x 8 equal parts, 0..1."""

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels, SIDE).flatten(1) / 255


EXTRACTORS.add("pixels", Pixels())
