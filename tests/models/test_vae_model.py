"""The whole VAE: shapes, conversions, objective, determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from vae_helpers import TINY, blobs

from ldsaug_ray.config import Vae, load_config
from ldsaug_ray.errors import ConfigError, DivergedError, InputError
from ldsaug_ray.models import (
    RESOLUTIONS,
    VAE,
    Trainer,
    build_vae,
    decode_images,
    free_bits,
    kl_standard_normal,
    posterior_means,
    reconstruction_error,
    to_float,
    to_uint8,
    weights_digest,
)
from ldsaug_ray.models.stylegan2.model import step_flop


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_shapes(resolution: int, mapping_layers: int) -> None:
    settings = Vae(latent_dim=5, channel_base=256, channel_max=6, mapping_layers=mapping_layers)
    vae = build_vae(settings, resolution, seed=0)
    images = torch.tensor(blobs(2, resolution))
    out = vae(images)
    assert out.reconstruction.shape == (2, 3, resolution, resolution)
    assert out.mu.shape == out.logvar.shape == (2, 5)
    assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in out)
    assert posterior_means(vae, images.numpy(), 2).shape == (2, 5)
    assert len(vae.encoder.blocks) == len(vae.decoder.blocks) == resolution.bit_length() - 3


def test_untrained_pictures_lie_near_the_images_range() -> None:
    vae = build_vae(Vae(latent_dim=64, channel_base=1024, channel_max=64, mapping_layers=8), 64, seed=0)
    with torch.inference_mode():
        x = vae.decode(torch.randn(16, 64, generator=torch.Generator().manual_seed(0)))
        mu, logvar = vae.encode(torch.tensor(blobs(16, 64)))
    assert x.abs().mean() < 1
    assert mu.square().mean() < 10
    assert logvar.mean().item() == pytest.approx(-2, abs=0.5)


def test_log_variance_is_bounded_for_absurd_images(tiny: VAE) -> None:
    with torch.inference_mode():
        _, logvar = tiny.encode(torch.full((1, 3, 16, 16), 1e6))
    assert logvar.abs().max() <= 10


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="resolution: 48 is not one of 16, 32"):
        VAE(TINY, 48)
    with pytest.raises(ConfigError, match="channel_base: 128 leaves no channel at 256 px"):
        VAE(TINY, 256)


def test_weights_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first = weights_digest(build_vae(TINY, 16, seed=3))
    torch.rand(7)
    assert weights_digest(build_vae(TINY, 16, seed=3)) == first
    assert weights_digest(build_vae(TINY, 16, seed=4)) != first
    torch.random.set_rng_state(state)
    build_vae(TINY, 16, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_image_conversions_are_inverse_and_take_both_layouts() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = to_float(images)
    assert x.shape == (1, 3, 16, 16)
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_uint8(x), images)
    assert torch.equal(to_float(images.permute(0, 3, 1, 2)), x)
    assert torch.equal(to_float(x), x)
    assert to_uint8(torch.tensor([-7.0, 0.0, 7.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 128, 255]
    with pytest.raises(InputError, match=r"got int64\[2, 16, 16, 3\]"):
        to_float(torch.zeros(2, 16, 16, 3, dtype=torch.int64))


def test_inference_is_deterministic_and_leaves_the_model_alone(tiny: VAE) -> None:
    before = weights_digest(tiny)
    images = blobs(11)
    images.flags.writeable = False  # as Ray hands them out
    mu = posterior_means(tiny, images, 4)
    assert mu.dtype == np.float32
    assert np.array_equal(mu, posterior_means(tiny, images, 4))
    np.testing.assert_allclose(mu, posterior_means(tiny, images, 11), rtol=1e-4, atol=1e-5)
    pictures = decode_images(tiny, mu, 4)
    assert (pictures.shape, pictures.dtype) == ((11, 16, 16, 3), np.uint8)
    assert np.array_equal(pictures, decode_images(tiny, mu, 4))
    assert tiny.training
    assert weights_digest(tiny) == before
    assert posterior_means(tiny, images[:0], 4).shape == (0, 8)
    assert decode_images(tiny, mu[:0], 4).shape == (0, 16, 16, 3)


def test_inference_names_what_is_wrong(tiny: VAE) -> None:
    with pytest.raises(InputError, match=r"uint8\[N, 16, 16, 3\].*uint8\[2, 32, 32, 3\]"):
        posterior_means(tiny, blobs(2, 32), 4)
    with pytest.raises(InputError, match=r"float32\[N, 8\].*float64\[2, 8\]"):
        decode_images(tiny, np.zeros((2, 8)), 4)
    with pytest.raises(InputError, match="latent 1 is not finite"):
        decode_images(tiny, np.array([[0] * 8, [np.inf] * 8], np.float32), 4)
    with torch.no_grad():
        tiny.decoder.const.fill_(torch.nan)
        tiny.encoder.mu.bias.fill_(torch.nan)
    with pytest.raises(DivergedError, match="decodes latents 0 to 1 to values that are not finite"):
        decode_images(tiny, np.zeros((2, 8), np.float32), 4)
    with pytest.raises(DivergedError, match="2 of 2 latents are not finite"):
        posterior_means(tiny, blobs(2), 4)


def test_the_centre_cancels_in_reconstructions(tiny: VAE) -> None:
    images = torch.tensor(blobs(8))
    with torch.inference_mode():
        plain = tiny(images, torch.Generator().manual_seed(0))
        tiny.centre.add_(3.0)
        moved = tiny(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.reconstruction, plain.reconstruction, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved.mu, plain.mu - 3)


def test_kl_equals_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(5, 7, generator=generator), 3 * torch.randn(5, 7, generator=generator)
    posterior = torch.distributions.Normal(mu.double(), (0.5 * logvar.double()).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    np.testing.assert_allclose(kl_standard_normal(mu, logvar), expected, rtol=1e-5, atol=1e-7)
    assert not kl_standard_normal(torch.zeros(1, 4), torch.zeros(1, 4)).any()


def test_free_bits_hold_each_dimension_in_the_weighted_mean_over_the_batch() -> None:
    kl = torch.rand(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0], dtype=torch.float64)
    for bits in (0.0, 0.5, 2.0):
        expected = sum(max(bits, float(sum(w * k for w, k in zip(weights, kl[:, j], strict=True)))) for j in range(7))
        assert free_bits(kl, weights, bits).item() == pytest.approx(expected)


def test_reconstruction_errors() -> None:
    x, y = torch.tensor([[0.0, 0.5, -1.0], [1.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    assert reconstruction_error(x, y, "l1").tolist() == pytest.approx([2.5 / 3, 1 / 3])
    assert reconstruction_error(x, y, "l2").tolist() == pytest.approx([4.25 / 3, 1 / 3])
    exact = [sum((d * d + 1e-6) ** 0.5 - 1e-3 for d in deltas) / 3 for deltas in ((0.0, 0.5, 2.0), (0.0, 0.0, 1.0))]
    assert reconstruction_error(x, y, "charbonnier").tolist() == pytest.approx(exact, rel=1e-5)
    with pytest.raises(ValueError, match="l3"):
        reconstruction_error(x, y, "l3")


@pytest.mark.parametrize(("file", "batch"), [("demo", 4), ("celeba10k", 2)])
def test_work_of_a_step_is_about_what_torch_counts(file: str, batch: int) -> None:
    config = load_config(str(Path(__file__).parents[2] / f"configs/{file}.yaml"))
    side = config.data.resolution
    trainer = Trainer(build_vae(config.vae, side, 0), config.train, 0, "cpu")
    with FlopCounterMode(display=False) as counted:
        trainer.train_step(blobs(batch, side))
    assert step_flop(config.vae, side, batch) == pytest.approx(counted.get_total_flops(), rel=0.1)
