"""Damaged clips, to see whether a score of realness falls: each a function of float32[T] and a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.floating[Any]]

NOISE_DB = 20.0  # below the clip's own power
PASSED = 0.25  # of the frequencies, the lowest: 1 kHz of clips at 8 kHz
PIECES = 8


def noise(clip: Samples, rng: np.random.Generator) -> Samples:
    """White noise 20 dB below the clip."""
    size = np.sqrt(np.square(clip, dtype=np.float64).mean()) * 10 ** (-NOISE_DB / 20)
    return clip + size * rng.standard_normal(len(clip))


def low_pass(clip: Samples, rng: np.random.Generator) -> Samples:
    """The lowest quarter of the frequencies: Butterworth's filter of order 8, there and back, so nothing shifts."""
    from scipy.signal import butter, sosfiltfilt

    out: Samples = sosfiltfilt(butter(8, PASSED, output="sos"), clip)
    return out


def backwards(clip: Samples, rng: np.random.Generator) -> Samples:
    """Last sample first."""
    return clip[::-1]


def shuffled(clip: Samples, rng: np.random.Generator) -> Samples:
    """Eight pieces in a random order, never the one they had."""
    order = np.arange(PIECES)
    while (order == np.arange(PIECES)).all():
        order = rng.permutation(PIECES)
    pieces = np.array_split(clip, PIECES)
    return np.concatenate([pieces[k] for k in order])


DAMAGE: dict[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "noise": noise,
    "low-pass": low_pass,
    "reversed": backwards,
    "shuffled pieces": shuffled,
}
