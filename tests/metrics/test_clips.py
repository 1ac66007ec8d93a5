"""Extractors of clips: what a network gets, features without one, and the floors of the Fréchet audio distance."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import frechet_distance, open_extractor

RATE = 8_000


class Power(torch.nn.Module):
    """Length and mean square of each clip: what a network that takes clips sees of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((x.shape[0],), float(x.shape[1])), x.square().mean(1)], dim=1)


@pytest.fixture
def power(tmp_path: Path) -> str:
    """A TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's own deprecation
        torch.jit.script(Power()).save(str(tmp_path / "power.pt"))
    return str(tmp_path / "power.pt")


def tones(n: int = 3) -> np.ndarray:
    t = np.arange(RATE) / RATE
    return np.stack([np.sin(2 * np.pi * 200 * (k + 1) * t) for k in range(n)]).astype(np.float32)


def test_a_network_gets_clips_at_16_khz_and_a_bare_file_at_their_own(power: str) -> None:
    at_16 = open_extractor(f"clips:{power}", domain="audio", facts={"rate": RATE})(tones())
    np.testing.assert_allclose(at_16, [[16_000, 0.5]] * 3, rtol=5e-3)  # a half is a sine's power; the ends ring
    bare = open_extractor(power, domain="audio", facts={"rate": RATE})(tones())
    np.testing.assert_allclose(bare, [[8_000, 0.5]] * 3, rtol=1e-5)


def test_what_is_wrong_is_told(power: str) -> None:
    with pytest.raises(ConfigError, match=r"name a TorchScript file, clips:FILE\.pt"):
        open_extractor("clips", domain="audio", facts={"rate": RATE})
    with pytest.raises(InputError, match=r"nowhere\.pt: cannot be read"):
        open_extractor("clips:nowhere.pt", domain="audio", facts={"rate": RATE})
    with pytest.raises(ConfigError, match=r"is of domain=audio, not of domain=images"):
        open_extractor(f"clips:{power}")
    with pytest.raises(ConfigError, match=r"is of domain=images, not of domain=audio; possible: .*bands, clips"):
        open_extractor("inception", domain="audio", facts={"rate": RATE})


def test_bands_hold_the_tone_where_it_is() -> None:
    x = open_extractor("bands", domain="audio", facts={"rate": RATE})(tones(4)).reshape(4, 16, 4)
    # band of each tone among 16 that are even in mel; its filters of 64 lie four to a band
    mel = 2595 * np.log10(1 + 200 * np.arange(1, 5) / 700)
    expected = (mel / (2595 * np.log10(1 + 4_000 / 700)) * 65 - 1) / 4
    assert np.abs(x.mean(axis=2).argmax(axis=1) + 0.5 - expected).max() < 1


def test_floors_of_spoken_digits(shared: Path) -> None:
    """600 clips against 600: real halves .017, reversed .152, as measured apart from this code."""
    pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'ldsaug_ray[audio]'")
    from ldsaug_ray.domains.audio.decode import decode_clip

    column = pq.read_table(shared / "data/fsdd/recordings.parquet", columns=["audio"])["audio"]
    order = np.random.default_rng(0).permutation(len(column))[:1200]
    x = np.stack([decode_clip(column[int(k)]["bytes"].as_py(), rate=RATE, seconds=0.975) for k in order])
    extractor = open_extractor(f"clips:{shared / 'models/voice.pt'}", domain="audio", facts={"rate": RATE})
    real, others = extractor(x[:600]), extractor(x[600:])
    assert frechet_distance(real, others) == pytest.approx(0.017, abs=0.002)
    assert frechet_distance(real, extractor(x[600:, ::-1])) == pytest.approx(0.152, abs=0.01)
