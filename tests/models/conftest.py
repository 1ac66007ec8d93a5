"""Fixtures of the VAE tests."""

from __future__ import annotations

import pytest
import torch
from vae_helpers import TINY

from ldsaug_ray.models import VAE, build_vae


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same weights and inputs whichever tests run before."""
    torch.manual_seed(2718)  # not a seed that a test gives its own generator: weights would equal inputs


@pytest.fixture
def tiny() -> VAE:
    """A VAE for 16 px with mapping network and noise that matters."""
    vae = build_vae(TINY, 16, seed=1)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return vae
