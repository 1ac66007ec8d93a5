"""A thousand tones made by a formula: clips that need no download, half a second at 8 kHz.

Tone k has waveform k mod 4 (sine, triangle, square, sawtooth: its harmonics below 3.6 kHz), a pitch between 110 and 880
Hz that is even in octaves, a decay, and an attack of 10 ms. Attributes, used only with data.attributes=columns:
`waveform`, 0 to 3, and `high`, above 311 Hz.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ldsaug_ray.domains.audio.player import wav_bytes
from ldsaug_ray.domains.sources.base import Reading, Source, check_names, listing

RATE, SAMPLES, COUNT = 8_000, 4_000, 1_000
_NAMES = ("waveform", "high")


class TonesSource(Source):
    """Keys `tone-0000` and so on. Raises InputError for an attribute that tones do not have."""

    def __init__(self, with_attributes: bool, names: tuple[str, ...] | None) -> None:
        self.uri = "tones"
        if with_attributes:
            check_names(names, _NAMES, "tones have no attribute")
        self.attribute_names = tuple(names or _NAMES) if with_attributes else ()
        self.categorical = frozenset({"waveform"} & set(self.attribute_names))

    def list(self) -> pa.Table:
        """See `Source.list`."""
        return listing([f"tone-{k:04d}" for k in range(COUNT)], [""] * COUNT, range(COUNT), [-1] * COUNT)

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`."""
        for k in records["index"].to_pylist():
            clip, values = tone(k)
            yield wav_bytes(clip, RATE), None, {n: values[n] for n in self.attribute_names} or None


def tone(k: int) -> tuple[np.ndarray, dict[str, int]]:
    """(float64[SAMPLES] with a peak of ½, its attributes)."""
    rng, t = np.random.default_rng(k), np.arange(SAMPLES) / RATE
    pitch, decay = 110 * 2 ** rng.uniform(0, 3), rng.uniform(3, 12)
    waveform = k % 4
    step, power = ((1, 1.0), (2, 2.0), (2, 1.0), (1, 1.0))[waveform]
    orders = np.arange(1, 2 if waveform == 0 else max(2, int(3_600 / pitch) + 1), step)
    signs = np.cos(np.pi * (orders - 1) / 2) if waveform == 1 else 1
    clip = (signs / orders**power * np.sin(2 * np.pi * pitch * t[:, None] * orders)).sum(axis=1)
    clip *= np.minimum(1, t / 0.01) * np.exp(-decay * t)
    return clip / np.abs(clip).max() / 2, {"waveform": waveform, "high": 1 if pitch > 311 else -1}
