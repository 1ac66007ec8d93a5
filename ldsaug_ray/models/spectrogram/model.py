"""The variational autoencoder of clips (Kingma & Welling 2014, arXiv:1312.6114), over log-mel spectrograms.

A spectrogram is read as a sequence of frames with the bands as channels. On spoken digits, with equal latents and equal
time, such a VAE gave clips nearer to the real ones than one over the waveform (docs/domains.md): phases are noise
to a latent, and the inverse finds some that fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.config import Objective
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.spectrogram.mel import LogMel, window_length
from ldsaug_ray.models.training.losses import reconstruction_error

if TYPE_CHECKING:
    from ldsaug_ray.models.codecs.spectrogram import SpectrogramVae

HALVINGS = 3
_KERNEL = 3


class SpectrogramVAE(Codec):
    """Clips float32[N, T] ↔ latents; in between log-mel spectrograms float32[B, mels, frames], nominally −1..1."""

    unit = "clips"
    settings: SpectrogramVae

    def __init__(self, settings: SpectrogramVae, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings, self.given, self.latent_dim = settings, dict(given), settings.latent_dim
        self.mel = LogMel(given["rate"], given["samples"], settings.mels)
        width, short = settings.channels, math.ceil(self.mel.frames / 2**HALVINGS)
        self.encoder = _Encoder(settings.mels, width, short, settings.latent_dim)
        self.decoder = _Decoder(settings.mels, width, short, settings.latent_dim, self.mel.frames)

    def blank(self, n: int) -> NDArray[np.float32]:
        """As of `Codec`: float32[n, T]."""
        return np.empty((n, self.mel.samples), np.float32)

    @torch.no_grad()
    def to_tensor(self, batch: NDArray[np.float32]) -> Tensor:
        """Spectrograms."""
        mel: Tensor = self.mel(torch.tensor(batch, device=self.mel.window.device))
        return mel.cpu()

    def to_batch(self, output: Tensor) -> NDArray[np.float32]:
        """As of `Codec`: by the fixed inverse."""
        return np.asarray(self.mel.inverse(output).cpu().numpy())

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, log σ²), both float32[B, d], of spectrograms."""
        mu, logvar = self.encoder(items).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Spectrograms of float32[B, d]."""
        spectrograms: Tensor = self.decoder(z)
        return spectrograms

    def error(self, output: Tensor, items: Tensor, objective: Objective) -> Tensor:
        """As of `Codec`, in units of 30 dB."""
        return reconstruction_error(output, items, objective.reconstruction)


class _Encoder(nn.Module):
    """[B, mels, frames] -> [B, 2 d]: each step halves the frames."""

    def __init__(self, mels: int, width: int, short: int, latent_dim: int) -> None:
        super().__init__()
        self.whole = short * 2**HALVINGS
        layers: list[nn.Module] = []
        for k in range(HALVINGS):
            layers += [nn.Conv1d(width if k else mels, width, _KERNEL, stride=2, padding=_KERNEL // 2), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * short, 2 * latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(nn.functional.pad(x, (0, self.whole - x.shape[2]), value=-1.0))  # silence
        return out


class _Decoder(nn.Module):
    """[B, d] -> [B, mels, frames]: each step doubles the frames."""

    def __init__(self, mels: int, width: int, short: int, latent_dim: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        layers: list[nn.Module] = [nn.Linear(latent_dim, width * short), nn.Unflatten(1, (width, short)), nn.SiLU()]
        for _ in range(HALVINGS):
            layers += [nn.Upsample(scale_factor=2), nn.Conv1d(width, width, _KERNEL, padding=_KERNEL // 2), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv1d(width, mels, _KERNEL, padding=_KERNEL // 2))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z)[..., : self.frames]
        return out


def step_flop(settings: SpectrogramVae, given: Mapping[str, Any], batch: int) -> float:
    """Floating-point operations of a training step, about: its convolutions, forwards once and backwards twice."""
    window = window_length(given["rate"])
    frames, width, mels = 4 * given["samples"] / window, settings.channels, settings.mels
    halves = sum(2.0**-k for k in range(HALVINGS))  # of the frames that a layer gives, beside the first
    each = frames * (width * (mels / 2 + width * (halves - 1) / 2) + width * (width * halves + mels))
    return 3.0 * 2 * batch * _KERNEL * each


def build_spectrogram_vae(settings: SpectrogramVae, given: Mapping[str, Any], seed: int) -> SpectrogramVAE:
    """A new one on the CPU, weights by the arguments alone; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return SpectrogramVAE(settings, given)
