"""Clips for users: as WAV files, and in a page that needs nothing else, with a player and a spectrogram."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldsaug_ray.domains.audio.decode import resampled, soundfile

ROWS, COLUMNS = 64, 160  # of the picture at most, px
RANGE_DB = 60.0  # from the loudest, black, to white
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # that MP3 knows, Hz
_WHOLE = 1 << 15  # steps of 16 bits from 0 to 1


def player(clip: NDArray[np.float32], rate: int) -> str:
    """HTML of float32[T]. For the ear and eye alone: MP3, a third of FLAC and played by every browser, and WebP."""
    played = min(r for r in RATES if r >= rate)
    sound, picture = io.BytesIO(), io.BytesIO()
    x = np.clip(resampled(clip, rate, played), -1, 1)
    soundfile().write(sound, x, played, format="MP3", bitrate_mode="VARIABLE", compression_level=0.8)
    Image.fromarray(spectrogram(clip)).save(picture, "WEBP", quality=50)
    heard, seen = (base64.b64encode(file.getvalue()).decode() for file in (sound, picture))
    return (
        f'<img src="data:image/webp;base64,{seen}" alt="spectrogram, 0 to {rate / 2000:g} kHz over '
        f'{len(clip) / rate:g} s" style="width:100%"><audio controls preload="metadata" style="width:100%" '
        f'src="data:audio/mpeg;base64,{heard}"></audio>'
    )


def spectrogram(clip: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8[rows, columns] of float32[T]: frequencies upwards, time to the right, loud is dark; for the eye."""
    window = np.hanning(4 * ROWS)
    columns = min(COLUMNS, max(1, len(clip) // ROWS))
    starts = np.linspace(0, max(0, len(clip) - len(window)), columns).astype(int)
    padded = np.pad(clip, (0, max(0, len(window) - len(clip))))
    frames = np.stack([padded[s : s + len(window)] for s in starts]) * window
    power = np.square(np.abs(np.fft.rfft(frames)))[:, :-1].reshape(columns, ROWS, 2).sum(axis=2)
    decibel = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 10 ** (-RANGE_DB / 10)))
    return np.rint(-decibel.T[::-1] / RANGE_DB * 255).astype(np.uint8)


def wav_bytes(clip: NDArray[np.floating[Any]], rate: int) -> bytes:
    """float[T], −1..1, as a WAV file of 16 bits."""
    whole = np.clip(np.rint(clip * np.float64(_WHOLE)), -_WHOLE, _WHOLE - 1).astype("<i2")
    with io.BytesIO() as out:
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(whole.tobytes())
        return out.getvalue()
