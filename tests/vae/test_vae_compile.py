"""torch.compile: the same numbers, the same names."""

from __future__ import annotations

import shutil

import pytest
from vae_helpers import TINY, blobs

from ldsaug_ray.config.settings import Optimisation
from ldsaug_ray.vae import Trainer, build_vae

# Inductor and its helpers warn about themselves
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::torch\\."),
    pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler for Inductor"),
]


def test_compiled_steps_equal_plain_ones() -> None:
    adversarial = {"weight": 0.1, "path_length": 1.0, "path_length_every": 2, "r1_every": 2}
    settings = Optimisation(steps=1, learning_rate=1e-3, objective={"adversarial": adversarial})  # type: ignore[arg-type]
    plain = Trainer(build_vae(TINY, 16, 1), settings, 0, "cpu")
    compiled = Trainer(build_vae(TINY, 16, 1), settings.model_copy(update={"compile": True}), 0, "cpu")
    for k in range(3):
        a, b = plain.train_step(blobs(4, seed=k)), compiled.train_step(blobs(4, seed=k))
        assert b == pytest.approx(a, rel=2e-3, abs=1e-5)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
