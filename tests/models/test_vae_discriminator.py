"""The discriminator against its formulas, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from vae_helpers import TINY, blobs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Adversarial, Vae
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models import (
    RESOLUTIONS,
    Discriminator,
    build_discriminator,
    load_discriminator,
    save_discriminator,
    save_vae,
    to_float,
    weights_digest,
)
from ldsaug_ray.models.stylegan2.discriminator import minibatch_stddev
from ldsaug_ray.models.stylegan2.model import build_vae

ADVERSARIAL = Adversarial(stddev_group=2)


def _digest(d: Discriminator) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in d.state_dict().items()}


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_logit_for_each_image_and_a_block_for_each_halving(resolution: int) -> None:
    d = build_discriminator(Vae(channel_base=256, channel_max=6), resolution, ADVERSARIAL, seed=0)
    logits = d(to_float(torch.tensor(blobs(3, resolution))))
    assert (logits.shape, logits.dtype) == ((3,), torch.float32)
    assert torch.isfinite(logits).all()
    assert len(d.blocks) == resolution.bit_length() - 3


def test_weights_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first = _digest(build_discriminator(TINY, 16, ADVERSARIAL, seed=3))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert _digest(build_discriminator(TINY, 16, ADVERSARIAL, seed=3)) == first
    assert _digest(build_discriminator(TINY, 16, ADVERSARIAL, seed=4)) != first
    with pytest.raises(ConfigError, match="resolution: 48 is not one of"):
        build_discriminator(TINY, 48, ADVERSARIAL, seed=0)


@pytest.mark.parametrize(
    ("batch", "groups"),  # of at most 4 images: (its images, the images that get its statistic)
    [
        (8, [(slice(0, 4), slice(0, 4)), (slice(4, 8), slice(4, 8))]),
        (7, [(slice(0, 4), slice(0, 4)), (slice(3, 7), slice(4, 7))]),
        (5, [(slice(0, 4), slice(0, 4)), (slice(1, 5), slice(4, 5))]),
        (2, [(slice(0, 2), slice(0, 2))]),
        (1, [(slice(0, 1), slice(0, 1))]),
    ],
)
def test_minibatch_standard_deviation(batch: int, groups: list[tuple[slice, slice]]) -> None:
    x = torch.randn(batch, 3, 4, 4, dtype=torch.float64)
    y = minibatch_stddev(x, 4)
    assert y.shape == (batch, 4, 4, 4)
    assert torch.equal(y[:, :3], x)
    for members, shown in groups:
        expected = np.sqrt(x[members].numpy().var(0) + 1e-8).mean()
        np.testing.assert_allclose(y[shown, 3].numpy(), expected, rtol=1e-12)


def test_the_deviation_does_not_tell_the_size_of_a_batch() -> None:
    """Else the discriminator would know real batches from fake ones, which are larger, by it alone."""
    generator = torch.Generator().manual_seed(0)
    means = [
        minibatch_stddev(torch.randn(n, 8, 16, 16, generator=generator), 4)[:, 8].mean().item()
        for n in (16, 19, 35, 37, 38, 70, 102)
    ]
    assert max(means) - min(means) < 0.02
    assert min(means) > 0.7


def test_an_image_counts_within_its_group_alone() -> None:
    d = build_discriminator(TINY, 16, ADVERSARIAL, seed=0).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(d(x)[0], x)
    assert (gradient.abs().amax((1, 2, 3)) > 0).tolist() == [True, True, False, False]


def test_round_trip(tmp_path: Path) -> None:
    file = Location.of(tmp_path / "d.safetensors")
    d = build_discriminator(TINY, 16, ADVERSARIAL, seed=1)
    save_discriminator(file, d)
    loaded = load_discriminator(file, expect=(TINY, 16, ADVERSARIAL))
    assert _digest(loaded) == _digest(d)
    x = to_float(torch.tensor(blobs(4)))
    assert torch.equal(loaded(x), d(x))
    assert loaded.stddev_group == 2


def test_files_that_are_wrong(tmp_path: Path) -> None:
    file = Location.of(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="there is no such checkpoint"):
        load_discriminator(file)
    d = build_discriminator(TINY, 16, ADVERSARIAL, seed=1)
    save_discriminator(file, d)
    wider = TINY.model_copy(update={"channel_max": 8})
    with pytest.raises(
        InputError, match=r"resolution is 16, expected 32; channel_max is 16, expected 8; stddev_group is 2, expected 4"
    ):
        load_discriminator(file, expect=(wider, 32, Adversarial()))
    whole = file.read_bytes()
    for keep in (0, 100, -1):
        file.write_bytes(whole[:keep])
        with pytest.raises(InputError, match="truncated"):
            load_discriminator(file)
    save_vae(file, build_vae(TINY, 16, 0))
    with pytest.raises(InputError, match=r"its format is ldsaug_ray\.vae version 1; this is for .*discriminator"):
        load_discriminator(file)
    with torch.no_grad():
        d.logit.bias.fill_(torch.nan)
    with pytest.raises(InputError, match=r"not written: tensor logit\.bias"):
        save_discriminator(file, d)
    assert weights_digest(load_vae_again(file)) == weights_digest(build_vae(TINY, 16, 0))


def load_vae_again(file: Location) -> torch.nn.Module:
    """The file must still be what it was."""
    from ldsaug_ray.models import load_vae

    return load_vae(file)
