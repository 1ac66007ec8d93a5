"""From a file's bytes to one channel of a set rate and length: checked, mixed down, resampled, cut or padded.

Everything that can be wrong with a clip ends as `Unusable` with a reason a person can act on. libsndfile reads a file
that was cut off as a shorter one: what the header promises is therefore compared with what is there.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np

from ldsaug_ray.common.pointers import POINTER_BYTES, pointer
from ldsaug_ray.domains.base import Unusable
from ldsaug_ray.errors import ResourceError

FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3"}
RATES = (1_000, 384_000)  # Hz; the filter between two rates has up to 20 times the larger one's samples
MOST_CHANNELS = 32
SILENT = 1e-4  # largest sample of a clip that counts as silent: -80 dBFS
LOUDEST = 8.0  # decoders overshoot 1, a file in other units goes beyond

_BLOCK = 1 << 16  # samples decoded at a time where only their number counts
_TAPS = 10  # of resample_poly's filter: half its length, in samples of the lower rate
_PLAIN = (1, 3, 0xFFFE)  # WAV's codes of PCM, float, and what is told further on: frames of one size
_UNKNOWN = 0xFFFFFFFF  # the length that a stream's writer puts down


def soundfile() -> Any:
    """The module that decodes and encodes. Raises ResourceError where it is not installed."""
    try:
        import soundfile as module
    except (ImportError, OSError) as e:  # OSError: the package without its library
        raise ResourceError(f"domain: audio needs soundfile: pip install 'ldsaug_ray[audio]' ({e})") from None
    return module


def decode_clip(payload: bytes, *, rate: int, seconds: float) -> np.ndarray:
    """Decode one clip to float32[round(rate · seconds)], nominally −1..1.

    Channels are averaged; the clip begins where the file does, and zeros follow where it is shorter. Of a long file
    only the beginning is held in memory.

    Args:
        payload: the file's bytes: WAV, FLAC, OGG (Vorbis, Opus) or MP3.
        rate: of the result, Hz.
        seconds: length of the result.

    Raises:
        Unusable: why this clip cannot be used.
        ResourceError: soundfile is not installed.
    """
    if not payload:
        raise Unusable("empty file")
    module = soundfile()
    if payload[:4] in (b"RIFF", b"RIFX", b"RF64"):
        _check_wav(payload)
    try:
        with module.SoundFile(io.BytesIO(payload)) as file:
            x, found = _beginning(file, payload, rate, seconds)
    except (module.LibsndfileError, RuntimeError) as e:
        raise Unusable(_damage(payload, e)) from None
    if not np.isfinite(x).all():
        raise Unusable("samples are NaN or infinite")
    loudest = float(np.abs(x).max())
    if loudest > LOUDEST:
        raise Unusable(f"samples up to {loudest:.3g}; floats must lie within -1..1")
    if float(np.abs(x - x.mean()).max()) < SILENT:
        raise Unusable(f"silence: no sample beyond {SILENT:g} in the first {min(seconds, len(x) / found):.3g} s")
    return fitted(resampled(x, found, rate), round(rate * seconds))


def resampled(x: np.ndarray, found: int, rate: int) -> np.ndarray:
    """float[…, T] at `found` Hz -> at `rate` Hz, by SciPy's polyphase filter."""
    from scipy.signal import resample_poly

    common = math.gcd(found, rate)
    return x if found == rate else resample_poly(x, rate // common, found // common, axis=-1)


def fitted(x: np.ndarray, length: int) -> np.ndarray:
    """float[T] as float32[length]: cut at the end, or zeros after it."""
    out = np.zeros(length, np.float32)
    out[: len(x)] = x[:length]
    return out


def _beginning(file: Any, payload: bytes, rate: int, seconds: float) -> tuple[np.ndarray, int]:
    """(float64[T], the file's rate): the mean of the channels for as long as the result needs, and its filter."""
    found, channels, promised = int(file.samplerate), int(file.channels), int(file.frames)
    if file.format not in FORMATS:
        raise Unusable(f"{file.format} is not read; {', '.join(dict.fromkeys(FORMATS.values()))} are")
    if not RATES[0] <= found <= RATES[1]:
        raise Unusable(f"a rate of {found:,} Hz; possible: {RATES[0]:,} to {RATES[1]:,}")
    if channels > MOST_CHANNELS:
        raise Unusable(f"{channels} channels, more than {MOST_CHANNELS}")
    if FORMATS[file.format] == "OGG":
        _check_ogg(payload)
    needed = math.ceil(seconds * found) + math.ceil(_TAPS * max(1.0, found / rate)) + 1
    x = file.read(needed, dtype="float64", always_2d=True).mean(axis=1)
    there = len(x)
    promised = 0 if file.format == "MP3" and not _tells_length(payload) else promised
    while there < promised and (n := len(file.read(_BLOCK, dtype="float32", always_2d=True))):
        there += n
    if there < promised:
        raise Unusable(f"truncated: {there:,} of {promised:,} samples are there")
    if not there:
        raise Unusable("no samples")
    return x, found


def _check_wav(payload: bytes) -> None:
    """Raise Unusable where the chunks of a RIFF file contradict each other or the file's length."""
    order = ">" if payload[:4] == b"RIFX" else "<"
    at, long = 12, 0
    while at + 8 <= len(payload):
        name, size = struct.unpack_from(f"{order}4sI", payload, at)
        at += 8
        if name == b"ds64" and at + 16 <= len(payload):  # of RF64: the length that 32 bits cannot tell
            long = struct.unpack_from(f"{order}Q", payload, at + 8)[0]
        if name == b"fmt " and at + 16 <= len(payload):
            code, _, rate, speed, frame = struct.unpack_from(f"{order}HHIIH", payload, at)
            if code in _PLAIN and speed != rate * frame:
                raise Unusable(f"a header that lies: {rate:,} Hz of {frame} bytes are not {speed:,} bytes a second")
        if name == b"data":
            there = len(payload) - at
            size = long or there if size == _UNKNOWN else size
            if there < size:
                raise Unusable(f"truncated: the header promises {size:,} bytes of sound, {there:,} are there")
            if not size:
                raise Unusable(f"no samples: the header promises none; {there:,} bytes follow it")
            return
        at += size + size % 2


def _check_ogg(payload: bytes) -> None:
    """Raise Unusable where the last page is not marked as the last, or not whole (RFC 3533, section 6)."""
    page = payload[payload.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        raise Unusable("truncated: the last page is missing")


def _tells_length(payload: bytes) -> bool:
    """Whether an MP3's first frame is Xing's or LAME's, with the number of frames; without it a length is a guess."""
    begin = 0
    if payload[:3] == b"ID3" and len(payload) > 10:
        a, b, c, d = payload[6:10]
        begin = 10 + (a << 21 | b << 14 | c << 7 | d)
    first = payload[begin : begin + 64]
    return b"Xing" in first or b"Info" in first


def _damage(payload: bytes, error: Exception) -> str:
    if payload[:4] in (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS") or payload[:3] == b"ID3":
        return f"truncated or damaged: {str(error).rpartition(': ')[2].rstrip('.')}"
    return pointer(payload[:POINTER_BYTES]) or f"not audio (begins with {payload[:12]!r})"
