"""A codec's score of what it decodes, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldsaug_ray.config import CommonVae
from ldsaug_ray.errors import DivergedError
from ldsaug_ray.models import likelihoods
from ldsaug_ray.models.vectors.identity import Identity

GIVEN = {"mean": [1.0, -2.0, 0.5], "spread": [2.0, 0.1, 1.0]}
Z = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


class Half(Identity):
    def decode(self, z):
        return super().decode(z / 2)


class Normal(Identity):
    def likelihood(self, z):
        """Of N(z, I), at what is decoded less the mean."""
        x = self.decode(z) - self.mean
        return -0.5 * (x - z).square().sum(1) - 1.5 * float(np.log(2 * np.pi))


class Broken(Identity):
    def decode(self, z):
        return super().decode(z * torch.nan)


def test_cycle_error_is_the_mean_squared_difference_of_latents() -> None:
    np.testing.assert_allclose(likelihoods(Identity(CommonVae(kind="identity"), GIVEN), Z, 4), 0, atol=1e-10)
    want = -np.square(Z.astype(np.float64) / 2).mean(axis=1)
    for size in (1, 4, 100):
        np.testing.assert_allclose(likelihoods(Half(CommonVae(kind="identity"), GIVEN), Z, size), want, rtol=1e-5)


def test_a_codec_that_knows_its_likelihood_gives_it() -> None:
    x = Z * np.array([2.0, 0.1, 1.0])
    want = -0.5 * np.square(x - Z).sum(axis=1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(likelihoods(Normal(CommonVae(kind="identity"), GIVEN), Z, 4), want, rtol=1e-5)


def test_what_is_not_a_number_is_told() -> None:
    with pytest.raises(DivergedError, match="latent 0 is decoded to what has no likelihood"):
        likelihoods(Broken(CommonVae(kind="identity"), GIVEN), Z, 4)
