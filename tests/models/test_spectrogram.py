"""Spectrograms against closed forms and scipy, their inverse against the sound, and a VAE that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import stft

from ldsaug_ray.config import Objective, Optimisation
from ldsaug_ray.models import decode_batch, encode_batch, load_vae, save_vae
from ldsaug_ray.models.codecs.spectrogram import SpectrogramVae
from ldsaug_ray.models.spectrogram.mel import FLOOR, LogMel, mel_filters
from ldsaug_ray.models.spectrogram.model import build_spectrogram_vae, step_flop
from ldsaug_ray.models.training.trainer import Trainer

RATE, SAMPLES = 8_000, 2_000
GIVEN = {"rate": RATE, "samples": SAMPLES}
SMALL = SpectrogramVae(latent_dim=4, mels=16, channels=16)


def tones(n: int, seed: int = 0) -> np.ndarray:
    rng, t = np.random.default_rng(seed), np.arange(SAMPLES) / RATE
    return np.stack([0.5 * np.sin(2 * np.pi * rng.uniform(200, 2_000) * t) for _ in range(n)]).astype(np.float32)


def test_filters_are_triangles_between_centres_that_are_even_in_mel() -> None:
    bank = mel_filters(RATE, 512, 64).numpy()
    centres = 2595 * np.log10(1 + bank.argmax(1) * RATE / 512 / 700)
    step = 2595 * np.log10(1 + RATE / 2 / 700) / 65
    # a centre lies between two bins, 15.6 Hz apart: at most 26 mel
    assert np.abs(centres - step * np.arange(1, 65)).max() < 2595 * np.log10(1 + RATE / 512 / 700)
    assert (bank.sum(1) > 0).all()
    inside = bank[:, 3:-12].sum(0)  # neighbours add up to one at every frequency between the outermost centres
    np.testing.assert_allclose(inside, 1, atol=1e-5)


def test_a_spectrogram_is_that_of_scipy() -> None:
    x = np.random.default_rng(0).normal(0, 0.1, SAMPLES)
    mel = LogMel(RATE, SAMPLES, 64)
    window = np.hanning(257)[:-1]
    _, _, found = stft(x, window=window, nperseg=256, noverlap=192, nfft=512, boundary=None, padded=False)
    whole = 2 * np.abs(found)  # scipy divides by the window's sum; frames that see no border, 64 samples apart
    expected = 1 - 2 / np.log(FLOOR) * np.log(mel.bank.numpy() @ whole + FLOOR)
    got = mel(torch.tensor(x, dtype=torch.float32)[None])[0].numpy()
    np.testing.assert_allclose(got[:, 2 : 2 + expected.shape[1]], expected, atol=1e-4)


def test_silence_is_minus_one_and_a_loud_tone_near_one() -> None:
    mel = LogMel(RATE, SAMPLES, 64)
    assert torch.equal(mel(torch.zeros(1, SAMPLES)), torch.full((1, 64, mel.frames), -1.0))
    t = torch.arange(SAMPLES) / RATE
    assert mel(torch.sin(2 * np.pi * 1_000 * t)[None]).max().item() == pytest.approx(
        1.15, abs=0.15
    )  # several bins of a band


def test_the_inverse_gives_a_clip_with_the_same_spectrogram() -> None:
    mel = LogMel(RATE, SAMPLES, 64)
    t = torch.arange(SAMPLES) / RATE
    sweep = 0.5 * torch.sin(2 * np.pi * (300 * t + 2_000 * t**2))[None]
    wanted = mel(sweep)
    assert (mel(mel.inverse(wanted)) - wanted).abs().mean() < 0.05 * (wanted + 1).abs().mean()
    assert mel.inverse(torch.full_like(wanted, -1.0)).abs().max() == 0


def test_a_clip_does_not_depend_on_those_beside_it() -> None:
    vae = build_spectrogram_vae(SMALL, GIVEN, 0)
    z = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    together = decode_batch(vae, z, 3)
    np.testing.assert_allclose(decode_batch(vae, z[1:2], 1), together[1:2], atol=1e-4)
    np.testing.assert_array_equal(decode_batch(vae, z, 3), together)


@pytest.mark.parametrize("samples", [800, 2_000, 2_047, 2_048])
def test_any_length_is_encoded_and_decoded(samples: int) -> None:
    vae = build_spectrogram_vae(SMALL, {"rate": RATE, "samples": samples}, 0)
    x = np.zeros((2, samples), np.float32)
    z = encode_batch(vae, x, 2)
    assert z.shape == (2, 4)
    assert decode_batch(vae, z, 2).shape == x.shape


def test_a_file_gives_the_same_clips(tmp_path) -> None:
    vae = build_spectrogram_vae(SMALL, GIVEN, 3)
    save_vae(tmp_path / "vae.safetensors", vae)
    again = load_vae(tmp_path / "vae.safetensors")
    z = encode_batch(vae, tones(2), 2)
    np.testing.assert_array_equal(encode_batch(again, tones(2), 2), z)
    np.testing.assert_array_equal(decode_batch(again, z, 2), decode_batch(vae, z, 2))


def test_training_lowers_the_error_of_unseen_tones() -> None:
    vae = build_spectrogram_vae(SMALL, GIVEN, 0)
    objective = Objective(beta=0.01)
    settings = Optimisation(steps=40, batch_size=16, learning_rate=3e-3, objective=objective, horizontal_flip=False)
    held_out, train = tones(32, seed=1), tones(64)
    before = vae.held_out_error(held_out, objective)
    trainer = Trainer(vae, settings, 0, "cpu")
    for step in range(40):
        trainer.train_step(train[16 * (step % 4) :][:16])
    assert trainer.model.held_out_error(held_out, objective) < 0.6 * before


def test_the_work_of_a_step_is_that_of_its_convolutions() -> None:
    settings = SpectrogramVae(latent_dim=4, mels=64, channels=64)
    vae, done = build_spectrogram_vae(settings, GIVEN, 0), 0.0

    def count(layer: torch.nn.Conv1d, _: object, out: torch.Tensor) -> None:
        nonlocal done
        done += 2 * out.numel() * layer.weight[0].numel()

    for layer in vae.modules():
        if isinstance(layer, torch.nn.Conv1d):
            layer.register_forward_hook(count)
    vae.decode(vae.encode(vae.to_tensor(tones(8)))[0])
    assert step_flop(settings, GIVEN, 8) == pytest.approx(3 * done, rel=0.15)  # frames are padded to eighths
