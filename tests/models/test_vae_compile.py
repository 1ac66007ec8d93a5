"""torch.compile: the same numbers, the same names.

Graphs are captured and differentiated as in real use; only the last step, Inductor's C++, is left out, since it takes
minutes and is PyTorch's own.
"""

from __future__ import annotations

import functools

import pytest
import torch
from vae_helpers import TINY, blobs

from ldsaug_ray.config import Optimisation
from ldsaug_ray.models import Trainer, build_vae

# the compiler's helpers warn about themselves
pytestmark = pytest.mark.filterwarnings("ignore:::torch\\.")


def test_compiled_steps_equal_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    adversarial = {"weight": 0.1, "path_length": 1.0, "path_length_every": 2, "r1_every": 2}
    settings = Optimisation(steps=1, learning_rate=1e-3, objective={"adversarial": adversarial})  # type: ignore[arg-type]
    plain = Trainer(build_vae(TINY, 16, 1), settings, 0, "cpu")
    compiled = Trainer(build_vae(TINY, 16, 1), settings.model_copy(update={"compile": True}), 0, "cpu")
    for k in range(3):
        a, b = plain.train_step(blobs(4, seed=k)), compiled.train_step(blobs(4, seed=k))
        assert b == pytest.approx(a, rel=2e-3, abs=1e-5)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
