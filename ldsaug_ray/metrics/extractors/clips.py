"""Extractors of clips: a TorchScript file that takes 16 kHz, for the Fréchet audio distance, and one without a network.

The Fréchet audio distance (Kilgour et al. 2019, arXiv:1812.08466) is the general Fréchet distance of such features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork
from ldsaug_ray.metrics.extractors.torchscript import TorchScript
from ldsaug_ray.models.spectrogram.mel import LogMel

RATE = 16_000  # Hz, of nearly all networks of speech and sounds
BANDS, PIECES = 16, 4


class Clips(TorchScript):
    """`clips:FILE.pt`: any TorchScript file whose forward takes float32[N, T] at 16 kHz, −1..1, to [N, C]. A bare
    FILE.pt gets clips at their own rate.
    """

    domain: ClassVar = "audio"

    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        """The file after the colon."""
        if not where:
            raise ConfigError("extractor clips: name a TorchScript file, clips:FILE.pt")
        return super().load(where, "")

    def stamp(self, spec: str, where: str) -> str:
        return super().stamp(where, "")

    def tensor(self, batch: NDArray[Any], facts: Mapping[str, Any]) -> Tensor:
        """The clips at 16 kHz."""
        from ldsaug_ray.domains.audio.decode import resampled

        return torch.tensor(resampled(batch, facts["rate"], RATE), dtype=torch.float32)


class Bands(FeatureNetwork):
    """`bands`: log-mel spectrograms averaged to 16 bands by 4 pieces of time, 64 features without a network."""

    domain: ClassVar = "audio"

    def tensor(self, batch: NDArray[Any], facts: Mapping[str, Any]) -> Tensor:
        """Spectrograms."""
        spectrograms: Tensor = LogMel(facts["rate"], batch.shape[1], 4 * BANDS)(torch.tensor(batch))
        return spectrograms

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels[:, None], (BANDS, PIECES)).flatten(1)


EXTRACTORS.add("clips", Clips())
EXTRACTORS.add("bands", Bands())
