"""Between clips and log-mel spectrograms: the transform, and a fixed inverse by Griffin & Lim.

The window is about 32 ms long, a quarter of it from one frame to the next; its transform is padded to twice the length,
so that even the narrowest mel filter holds a bin. The inverse solves for magnitudes, then finds phases that agree with
them: Griffin & Lim 1984 with the momentum of Perraudin, Balazs & Søndergaard 2013. It starts from the same phases for
every clip, so that a clip does not depend on those that are decoded beside it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WINDOW_SECONDS = 0.032
FLOOR = 1e-3  # of a sine's largest amplitude: what is 60 dB below is told from silence by nothing
MOMENTUM = 0.99
ITERATIONS = 32


class LogMel(nn.Module):
    """Clips float32[B, T] to spectrograms float32[B, mels, frames], nominally −1 (silence) to 1, and back.

    Args:
        rate: of the clips, Hz.
        samples: T.
        mels: bands, from 0 Hz to half the rate, evenly spaced in mel as HTK defines it, 2595 log10(1 + f / 700).
    """

    def __init__(self, rate: int, samples: int, mels: int) -> None:
        super().__init__()
        self.window_length = window_length(rate)
        self.transform, self.hop = 2 * self.window_length, self.window_length // 4
        self.samples, self.frames = samples, samples // self.hop + 1
        bank = mel_filters(rate, self.transform, mels)
        phases = torch.rand(len(bank[0]), self.frames, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
        # they follow from the arguments: not among the weights
        self.register_buffer("window", torch.hann_window(self.window_length), persistent=False)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("unbank", torch.linalg.pinv(bank.double()).float(), persistent=False)
        self.register_buffer("phases", torch.polar(torch.ones_like(phases), phases), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """float32[B, T] -> float32[B, mels, frames]: 1 − 2 log(a + FLOOR) / log FLOOR; a: 1 of a sine at full scale."""
        magnitude = self._transformed(clips).abs() * (2 / self.window.sum())
        return 1 - 2 / math.log(FLOOR) * torch.log(self.bank @ magnitude + FLOOR)

    def inverse(self, spectrograms: Tensor) -> Tensor:
        """float32[B, mels, frames] -> clips float32[B, T], about."""
        amplitude = (torch.exp((1 - spectrograms.float()) * math.log(FLOOR) / 2) - FLOOR).clamp(min=0)
        magnitude = (self.unbank @ amplitude).clamp(min=0) * (self.window.sum() / 2)
        phases = self.phases.expand_as(magnitude)
        last = torch.zeros_like(phases)
        for _ in range(ITERATIONS):
            consistent = self._transformed(self._clips(magnitude * phases))
            phases = consistent + MOMENTUM * (consistent - last)
            phases, last = phases / phases.abs().clamp(min=1e-8), consistent
        return self._clips(magnitude * phases)

    def _transformed(self, clips: Tensor) -> Tensor:
        return torch.stft(
            clips, self.transform, self.hop, self.window_length, self.window, pad_mode="constant", return_complex=True
        )

    def _clips(self, transformed: Tensor) -> Tensor:
        return torch.istft(transformed, self.transform, self.hop, self.window_length, self.window, length=self.samples)


def window_length(rate: int) -> int:
    """Of a frame, in samples: the power of two from `WINDOW_SECONDS` on."""
    return 1 << math.ceil(math.log2(WINDOW_SECONDS * rate))


def mel_filters(rate: int, transform: int, mels: int) -> Tensor:
    """Triangles float32[mels, transform / 2 + 1] with peak 1, each from its neighbours' centres to them."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, transform // 2 + 1, dtype=torch.float64)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(up, down).clamp(min=0).float()
