"""Clips of every kind against the sound that was written, and every fault against its reason."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from scipy.signal import resample_poly

from ldsaug_ray.domains.audio.decode import decode_clip
from ldsaug_ray.domains.base import Unusable
from ldsaug_ray.errors import ResourceError

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'ldsaug_ray[audio]'")
RATE = 16_000


def tone(rate: int = RATE, seconds: float = 0.5, hertz: float = 440.0, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def stored(x: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    with io.BytesIO() as buffer:
        soundfile.write(buffer, x, rate, format=kind, subtype=subtype)
        return buffer.getvalue()


def reason(payload: bytes, seconds: float = 0.5) -> str:
    with pytest.raises(Unusable) as caught:
        decode_clip(payload, rate=RATE, seconds=seconds)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 4e-5),
        ("WAV", "PCM_24", 2e-7),
        ("WAVEX", "PCM_24", 2e-7),
        ("RF64", "PCM_16", 4e-5),
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("FLAC", "PCM_24", 2e-7),
    ],
)
def test_what_is_stored_without_loss_comes_back(kind: str, subtype: str, error: float) -> None:
    x = decode_clip(stored(tone(), kind=kind, subtype=subtype), rate=RATE, seconds=0.5)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, tone(), atol=error)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy_kinds_come_back_nearly(kind: str, subtype: str | None) -> None:
    x = decode_clip(stored(tone(), kind=kind, subtype=subtype), rate=RATE, seconds=0.5)
    middle = slice(1_000, -1_000)  # codecs smear the ends
    assert np.abs(x - tone())[middle].max() < 0.05


def test_channels_are_averaged() -> None:
    both = np.stack([tone(), tone(hertz=880)], axis=1)
    x = decode_clip(stored(both, subtype="DOUBLE"), rate=RATE, seconds=0.5)
    np.testing.assert_allclose(x, both.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 192_000])
def test_other_rates_give_the_same_tone(rate: int) -> None:
    x = decode_clip(stored(tone(rate), rate, subtype="FLOAT"), rate=RATE, seconds=0.5)
    assert len(x) == RATE // 2
    np.testing.assert_allclose(x[300:-300], tone()[300:-300], atol=2e-3)  # the filter's ripple; its ends see silence


def test_a_beginning_is_that_of_the_whole_file_resampled() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 44_100)
    whole = resample_poly(noise, 160, 441)
    x = decode_clip(stored(noise, 44_100, subtype="DOUBLE"), rate=RATE, seconds=0.25)
    np.testing.assert_allclose(x, whole[:4_000], atol=1e-7)


def test_short_clips_are_padded_and_long_ones_cut() -> None:
    padded = decode_clip(stored(tone(seconds=0.25), subtype="DOUBLE"), rate=RATE, seconds=0.5)
    np.testing.assert_allclose(padded, np.pad(tone(seconds=0.25), (0, 4_000)), atol=1e-7)
    cut = decode_clip(stored(tone(seconds=2), subtype="DOUBLE"), rate=RATE, seconds=0.5)
    np.testing.assert_allclose(cut, tone(), atol=1e-7)


def test_a_stream_of_unknown_length_is_read_to_its_end() -> None:
    payload = bytearray(stored(tone(), subtype="PCM_24"))
    at = payload.index(b"data") + 4
    payload[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    np.testing.assert_allclose(decode_clip(bytes(payload), rate=RATE, seconds=0.5), tone(), atol=2e-7)


def test_an_mp3_that_does_not_tell_its_length_is_not_called_truncated() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([tone(seconds=4), 0.3 * rng.standard_normal(64_000)])
    with io.BytesIO() as buffer:
        soundfile.write(buffer, x, RATE, format="MP3", bitrate_mode="AVERAGE")
        payload = buffer.getvalue()
    for tag in (b"Xing", b"Info"):
        payload = payload.replace(tag, bytes(4), 1)
    assert len(decode_clip(payload, rate=RATE, seconds=9)) == 9 * RATE


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", "empty file"),
        (b"this is a text that somebody called speech.wav\n" * 20, "not audio (begins with b'this is a te')"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "a Git LFS pointer and not the data"),
        (stored(np.zeros(8_000)), "silence: no sample beyond 0.0001 in the first 0.5 s"),
        (stored(np.full(8_000, 0.25), subtype="FLOAT"), "silence"),
        (stored(np.where(np.arange(8_000) == 99, np.nan, tone()), subtype="FLOAT"), "samples are NaN or infinite"),
        (stored(np.where(np.arange(8_000) == 99, np.inf, tone()), subtype="FLOAT"), "samples are NaN or infinite"),
        (stored(tone(peak=30_000), subtype="FLOAT"), "samples up to 3e+04; floats must lie within -1..1"),
        (stored(tone()[:0]), "no samples"),
        (stored(tone(), 500), "a rate of 500 Hz; possible: 1,000 to 384,000"),
        (stored(tone(), 2_000_000), "a rate of 2,000,000 Hz"),
        (stored(np.zeros((10, 40))), "40 channels, more than 32"),
        (stored(tone(), kind="AIFF"), "AIFF is not read; WAV, FLAC, OGG, MP3 are"),
    ],
)
def test_what_is_wrong_is_told(payload: bytes, told: str) -> None:
    assert told in reason(payload)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "FLAC", "OGG", "MP3"])
def test_truncated_files_are_told(kind: str) -> None:
    payload = stored(np.random.default_rng(0).normal(0, 0.1, 5 * RATE), kind=kind)
    for cut in (len(payload) // 2, len(payload) - 300, 50):
        assert reason(payload[:cut], seconds=0.1).startswith(("truncated", "not audio"))


def test_headers_that_lie_are_told() -> None:
    payload = bytearray(stored(tone()))
    payload[24:28] = struct.pack("<I", 44_100)
    assert reason(bytes(payload)) == "a header that lies: 44,100 Hz of 2 bytes are not 32,000 bytes a second"
    payload = bytearray(stored(tone()))
    payload[24:32] = bytes(8)  # 0 Hz, and 0 bytes a second: libsndfile refuses it
    assert reason(bytes(payload)).startswith("truncated or damaged")
    payload = bytearray(stored(tone()))
    payload[40:44] = struct.pack("<I", 3_200_000)
    assert reason(bytes(payload)) == "truncated: the header promises 3,200,000 bytes of sound, 16,000 are there"
    payload[40:44] = bytes(4)
    assert reason(bytes(payload)) == "no samples: the header promises none; 16,000 bytes follow it"


def test_without_soundfile_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = stored(tone())
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ResourceError, match=r"pip install 'ldsaug_ray\[audio\]'"):
        decode_clip(payload, rate=RATE, seconds=0.5)
