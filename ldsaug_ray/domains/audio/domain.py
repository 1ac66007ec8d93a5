"""The domain `audio`: clips of one rate and length, float32[N, T], stored raw and given to users as WAV files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.base import DOMAINS, Domain
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.sources.walk import Files

FILES = Files("clip", "clips", ("wav", "flac", "ogg", "oga", "opus", "mp3"), "audio_column")
CLIP = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Clips = NDArray[np.float32]


class AudioData(CommonData):
    """Where the clips come from and how they become training arrays: one channel of one rate and length."""

    source: str = Field(
        min_length=1,
        description="folder of WAV, FLAC, OGG, MP3 files, Parquet file or folder, WebDataset tar(s), local or any URI; "
        "or tones, a thousand made by a formula",
    )
    format: Literal["auto", "folder", "parquet", "webdataset", "tones"] = Field(
        "auto", description="layout of the source; auto: judged from what is there"
    )
    audio_column: str = Field("audio", description="Parquet: column with the clip, struct<bytes, path> or binary")
    rate: int = Field(16_000, ge=4_000, le=48_000, description="samples a second; clips of other rates are resampled")
    seconds: float = Field(
        1.0, gt=0, le=30, description="length of a clip: longer ones are cut, zeros follow shorter ones"
    )

    @property
    def samples(self) -> int:
        """T, of a clip."""
        return round(self.rate * self.seconds)

    @property
    def made(self) -> bool:
        """Whether a formula makes the clips; a folder of that name is ./tones."""
        return self.source == "tones" and self.format in ("auto", "tones")

    @model_validator(mode="after")
    def _long_enough(self) -> AudioData:
        if self.samples < self.rate / 10:
            raise ValueError(f"seconds: {self.seconds:g} is too short; a clip takes at least 0.1")
        if self.format == "tones" and self.source != "tones":
            raise ValueError(f"format: tones goes with source: tones, not {self.source}")
        return self


class Audio(Domain):
    """Speech, instruments, machines: what libsndfile reads of WAV, FLAC, OGG and MP3."""

    name, unit, item, column = "audio", "clips", "clip", "audio"
    prepares = "read, check, mix down, resample and cut the clips; split them into train and test"
    files, data, codec, extractor = FILES, AudioData, "spectrogram", "bands"
    # `datasets` decodes the column because of this note
    metadata = {"huggingface": json.dumps({"info": {"features": {"audio": {"_type": "Audio"}}}})}  # noqa: RUF012
    exported, task = "WAV of 16 bits, as datasets' Audio feature", "text-to-audio"
    qualities = ("loudness",)
    damages = ("noise", "low-pass", "reversed", "shuffled pieces")
    defaults = {"report": {"samples": 6}}  # noqa: RUF012

    def open(self, data: AudioData) -> Source:
        """As of `Domain`; `tones` too. Raises ResourceError without soundfile, before anything is listed."""
        from ldsaug_ray.domains.audio.decode import soundfile
        from ldsaug_ray.domains.audio.tones import TonesSource

        soundfile()
        if data.made:
            return TonesSource(data.attributes == "columns", data.attribute_names)
        return super().open(data)

    def stamp(self, data: AudioData) -> str:
        """As of `Domain`."""
        return "" if data.made else super().stamp(data)

    def read(self, payload: Any, data: AudioData) -> Clips:
        """float32[T] of a file's bytes."""
        from ldsaug_ray.domains.audio.decode import decode_clip

        return decode_clip(payload, rate=data.rate, seconds=data.seconds)

    def empty(self, data: AudioData) -> Clips:
        """As of `Domain`."""
        return np.empty((0, data.samples), np.float32)

    def learn(self, batches: Iterator[Clips], source: Source, data: AudioData) -> dict[str, Any]:
        """The rate, which batches do not tell."""
        return {"rate": data.rate}

    def pack(self, batch: Clips) -> pa.Array:
        """Raw float32, binary of fixed size; not copied."""
        raw = np.ascontiguousarray(batch, "<f4")
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * batch.shape[1]), len(raw), [None, pa.py_buffer(raw)])

    def unpack(self, table: pa.Table, column: str | None = None) -> Clips:
        """float32[N, T] of raw samples, or of WAV files of one length."""
        stored = table[column or self.column].combine_chunks()
        if pa.types.is_fixed_size_binary(stored.type):
            width = stored.type.byte_width
            raw = np.frombuffer(stored.buffers()[1] or b"", np.uint8)[stored.offset * width :][: len(stored) * width]
            return raw.view("<f4").reshape(-1, width // 4)
        from ldsaug_ray.domains.audio.decode import soundfile

        read = soundfile().read
        return np.stack([read(io.BytesIO(p), dtype="float32")[0] for p in stored.field("bytes").to_pylist()])

    def export(self, batch: Clips, names: Sequence[str], facts: Mapping[str, Any]) -> pa.Array:
        """WAV files of 16 bits in the Hugging Face layout; samples beyond −1..1 are clipped."""
        from ldsaug_ray.domains.audio.player import wav_bytes

        rows = [
            {"bytes": wav_bytes(x, facts["rate"]), "path": f"{name}.wav"} for x, name in zip(batch, names, strict=True)
        ]
        return pa.array(rows, CLIP)

    def show(self, batch: Clips, facts: Mapping[str, Any]) -> list[str]:
        """A player and a spectrogram each."""
        from ldsaug_ray.domains.audio.player import player

        return [player(x, facts["rate"]) for x in batch]

    def quality(self, batch: Clips) -> dict[str, NDArray[np.float64]]:
        """Loudness: dB of the root mean square below that of a square wave at full scale; silence is −120."""
        power = np.square(batch, dtype=np.float64).mean(axis=1)
        return {"loudness": 10 * np.log10(np.maximum(power, 1e-12))}

    def damage(self, batch: Clips, kind: str, seed: int, numbers: NDArray[np.int64]) -> Clips:
        """As of `Domain`: see `damage.py`."""
        from ldsaug_ray.domains.audio.damage import DAMAGE

        if kind not in DAMAGE:
            return super().damage(batch, kind, seed, numbers)
        rngs = (np.random.default_rng([seed, int(n)]) for n in numbers)
        return np.stack([DAMAGE[kind](x, rng) for x, rng in zip(batch, rngs, strict=True)]).astype(np.float32)


AUDIO = DOMAINS.add("audio", Audio())
