"""What the domain does with clips: stored and back, given to users, shown, judged, damaged."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ldsaug_ray.config import config_class
from ldsaug_ray.domains.audio import AUDIO
from ldsaug_ray.domains.audio.damage import DAMAGE
from ldsaug_ray.domains.audio.domain import AudioData
from ldsaug_ray.domains.audio.player import spectrogram
from ldsaug_ray.domains.prepare import plan, prepare_unit
from ldsaug_ray.errors import ConfigError, InputError, ResourceError

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'ldsaug_ray[audio]'")
RATE = 8_000


def clips(n: int = 3, samples: int = 4_000) -> np.ndarray:
    t = np.arange(samples) / RATE
    return np.stack([0.5 * np.sin(2 * np.pi * 300 * (k + 1) * t) for k in range(n)]).astype(np.float32)


def written(folder: Path, n: int = 6) -> Path:
    folder.mkdir()
    for k, clip in enumerate(clips(n)):
        soundfile.write(folder / f"{k}.{('wav', 'flac', 'ogg', 'mp3')[k % 4]}", clip, RATE)
    return folder


def test_a_folder_becomes_train_and_test_and_counts_what_it_cannot_use(tmp_path: Path) -> None:
    folder = written(tmp_path / "clips")
    (folder / "silent.wav").write_bytes(AUDIO.export(np.zeros((1, 4_000)), ["x"], {"rate": RATE})[0]["bytes"].as_py())
    (folder / "named.wav").write_text("not a sound")
    (folder / "notes.txt").write_text("left alone")
    data = AudioData(source=str(folder), rate=RATE, seconds=0.5, train=6, test=2)
    source = AUDIO.open(data)
    work = plan(AUDIO, source, data, 0)
    units = [prepare_unit(AUDIO, source, unit, data) for unit in work.units]
    assert (work.n_listed, source.passed_over) == (8, {".txt": 1})
    found = {r["key"]: r["reason"] for unit in units for r in unit.quarantine.to_pylist()}
    assert found.keys() == {"silent.wav", "named.wav"}
    assert found["silent.wav"].startswith("silence")
    assert found["named.wav"].startswith("not audio")
    tables = pa.concat_tables([t for unit in units for t in (unit.train, unit.test)]).sort_by("key")
    lossless = [k for k, key in enumerate(tables["key"].to_pylist()) if key.endswith(("wav", "flac"))]
    rows = [int(key[0]) for key in tables["key"].to_pylist()]
    np.testing.assert_allclose(AUDIO.unpack(tables)[lossless], clips(6)[rows][lossless], atol=4e-5)


def test_labels_of_hugging_face_parquet_come_along(tmp_path: Path) -> None:
    digits = [0, 7, 3, 9]
    column = AUDIO.export(clips(4), [f"{k}" for k in range(4)], {"rate": RATE})
    table = pa.table({"audio": column, "digit": digits}).replace_schema_metadata(AUDIO.metadata)
    pq.write_table(table, tmp_path / "clips.parquet")
    data = AudioData(
        source=str(tmp_path / "clips.parquet"),
        rate=RATE,
        seconds=0.5,
        train=4,
        test=0,
        attributes="columns",
        attribute_names=("digit",),
    )
    source = AUDIO.open(data)
    (unit,) = plan(AUDIO, source, data, 0).units
    train = prepare_unit(AUDIO, source, unit, data).train.sort_by("key")
    assert train["key"].to_pylist() == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert [row["digit"] for row in train["attributes"].to_pylist()] == digits


def test_stored_and_given_clips_come_back() -> None:
    x = clips()
    table = pa.table({"audio": AUDIO.pack(x), "files": AUDIO.export(x, ["a", "b", "c"], {"rate": RATE})})
    np.testing.assert_array_equal(AUDIO.unpack(table), x)
    np.testing.assert_array_equal(AUDIO.unpack(table.slice(1, 1)), x[1:2])
    np.testing.assert_allclose(AUDIO.unpack(table, "files"), x, atol=2e-5)
    assert len(AUDIO.unpack(table.slice(0, 0))) == 0


def test_users_get_wav_files_that_datasets_decodes(tmp_path: Path) -> None:
    table = pa.table({"audio": AUDIO.export(2 * clips(1), ["a/b"], {"rate": RATE})})
    stored = table["audio"][0].as_py()
    assert stored["path"] == "a/b.wav"
    sound, rate = soundfile.read(io.BytesIO(stored["bytes"]))
    assert (rate, len(sound)) == (RATE, 4_000)
    np.testing.assert_allclose(sound, np.clip(2 * clips(1)[0], -1, 1), atol=4e-5)
    assert '"_type": "Audio"' in AUDIO.metadata["huggingface"]


def test_a_player_holds_the_sound_and_its_spectrogram() -> None:
    (html,) = AUDIO.show(clips(1), {"rate": RATE})
    sound, picture = (base64.b64decode(x) for x in re.findall(r'base64,([^"]+)"', html)[::-1])
    played, rate = soundfile.read(io.BytesIO(sound))
    assert rate == RATE
    assert len(sound) + len(picture) < 3_000
    error = played - clips(1)[0]
    assert len(played) == 4_000
    assert np.square(error).mean() < 0.01 * np.square(clips(1)[0]).mean()  # of MP3: 20 dB
    assert Image.open(io.BytesIO(picture)).size == (62, 64)
    assert "http" not in html


def test_a_spectrogram_is_dark_where_the_tone_is() -> None:
    picture = spectrogram(clips(4)[3])  # 1,200 Hz of 4,000: 0.3 of 64 rows from the bottom
    assert (np.argmin(picture.mean(axis=1)), picture.dtype) == (64 - 1 - int(0.3 * 64), np.uint8)


def test_loudness_is_that_of_a_sine() -> None:
    expected = 20 * np.log10(0.5 / np.sqrt(2))
    np.testing.assert_allclose(AUDIO.quality(clips(1))["loudness"], expected, atol=1e-3)
    assert AUDIO.quality(np.zeros((1, 8), np.float32))["loudness"] == -120


def test_damage_is_what_it_says_and_depends_on_the_number_alone() -> None:
    x = clips(2)
    numbers = np.array([5, 6])
    assert AUDIO.damages == tuple(DAMAGE)
    for kind in AUDIO.damages:
        both = AUDIO.damage(x, kind, 3, numbers)
        np.testing.assert_array_equal(both[1:], AUDIO.damage(x[1:], kind, 3, numbers[1:]))
        assert (both.dtype, both.shape) == (np.float32, x.shape)
        assert not np.array_equal(both, x)
    noise = AUDIO.damage(x, "noise", 3, numbers) - x
    assert 10 * np.log10(np.square(x).mean() / np.square(noise).mean()) == pytest.approx(20, abs=0.3)
    np.testing.assert_array_equal(AUDIO.damage(x, "reversed", 3, numbers), x[:, ::-1])
    np.testing.assert_array_equal(np.sort(AUDIO.damage(x, "shuffled pieces", 3, numbers)), np.sort(x))
    high = np.sin(2 * np.pi * 3_000 * np.arange(4_000) / RATE)[None].astype(np.float32)
    assert np.square(AUDIO.damage(x[:1] + high, "low-pass", 3, numbers[:1]) - x[:1])[:, 200:-200].max() < 1e-4
    with pytest.raises(ValueError, match=r"clips are not damaged by blur; known: noise, low-pass"):
        AUDIO.damage(x, "blur", 3, numbers)


def test_settings_follow_the_domain() -> None:
    given = {"domain": "audio", "run_dir": "x", "data": {"source": "y", "seconds": 0.8, "rate": RATE}}
    config = config_class("audio").model_validate(given)
    assert (config.vae.kind, config.data.samples) == ("spectrogram", 6_400)
    with pytest.raises(ValueError, match=r"seconds: 0\.05 is too short"):
        AudioData(source="y", seconds=0.05)
    with pytest.raises(
        ConfigError, match="stylegan2 is of the domain images; possible with domain: audio: spectrogram"
    ):
        config_class("audio", "stylegan2")


def test_without_soundfile_nothing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ResourceError, match=r"pip install 'ldsaug_ray\[audio\]'"):
        AUDIO.open(AudioData(source="nowhere"))


def test_tones_are_what_their_formula_says() -> None:
    source = AUDIO.open(AudioData(source="tones", attributes="columns"))
    listed = source.list()
    assert (len(listed), source.categorical) == (1_000, {"waveform"})
    for (payload, reason, values), k in zip(source.read(listed.slice(400, 4)), range(400, 404), strict=True):
        sound, rate = soundfile.read(io.BytesIO(payload))
        assert (reason, rate, values["waveform"]) == (None, 8_000, k % 4)
        power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
        peak = power.argmax()
        assert (values["high"] == 1) == (peak * rate / len(sound) > 311)
        harmonics = [power[n * peak - 4 : n * peak + 5].max() / power.max() for n in (2, 3)]
        assert [h > 1e-3 for h in harmonics] == [[False, False], [False, True], [False, True], [True, True]][k % 4]
    with pytest.raises(InputError, match=r"tones have no attribute 'digit'; there are: waveform, high"):
        AUDIO.open(AudioData(source="tones", attributes="columns", attribute_names=("digit",)))
