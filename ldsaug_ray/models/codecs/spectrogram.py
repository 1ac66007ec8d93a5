"""The codec of clips: a VAE over log-mel spectrograms that is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ldsaug_ray.config import CommonVae
from ldsaug_ray.config.base import Positive
from ldsaug_ray.models.codecs.base import CODECS, CodecKind

if TYPE_CHECKING:
    from ldsaug_ray.models.spectrogram.model import SpectrogramVAE


class SpectrogramVae(CommonVae):
    """A convolutional VAE over log-mel spectrograms; clips come back by Griffin & Lim."""

    kind: Literal["spectrogram"] = Field("spectrogram", description="spectrogram: trained here")
    latent_dim: Positive = Field(64, description="d, the latent's dimension")
    mels: int = Field(64, ge=16, le=128, description="bands of the spectrogram, from 0 Hz to half of data.rate")
    channels: Positive = Field(128, description="of every layer")


class Spectrogram(CodecKind):
    """Made for clips of one rate and length."""

    domain, settings = "audio", SpectrogramVae

    def given(self, data: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Their rate, Hz, and samples."""
        return {"rate": data.rate, "samples": data.samples}

    def build(self, settings: SpectrogramVae, given: Mapping[str, Any], seed: int) -> SpectrogramVAE:
        from ldsaug_ray.models.spectrogram.model import build_spectrogram_vae

        return build_spectrogram_vae(settings, given, seed)

    def flop(self, settings: SpectrogramVae, given: Mapping[str, Any], batch: int) -> float:
        from ldsaug_ray.models.spectrogram.model import step_flop

        return step_flop(settings, given, batch)


CODECS.add("spectrogram", Spectrogram())
