"""The optimiser: equal to PyTorch's, and no compiler is imported for it."""

import subprocess
import sys

import torch

from ldsaug_ray.models.training.adam import AdamW


def test_steps_are_those_of_pytorch() -> None:
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2)]
    both = [
        kind([w], lr=0.1, betas=(0.5, 0.9), weight_decay=0.01, fused=True)
        for kind, w in zip((AdamW, torch.optim.AdamW), weights, strict=True)
    ]
    for step in range(5):
        for optimizer, w in zip(both, weights, strict=True):
            (w.sin() * (step + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        if step == 2:  # goes on from what was saved
            both[0].load_state_dict(both[0].state_dict())
        assert torch.equal(*weights)
    kept, of_torch = (optimizer.state_dict() for optimizer in both)
    assert kept["param_groups"] == of_torch["param_groups"]
    assert all(torch.equal(kept["state"][0][name], value) for name, value in of_torch["state"][0].items())


def test_a_training_step_imports_no_compiler() -> None:
    code = """
import sys
import numpy as np
from ldsaug_ray.config import load_config
from ldsaug_ray.models import Trainer, build_vae
config = load_config("configs/demo.yaml", ["vae.channel_base=64", "vae.channel_max=8"])
trainer = Trainer(build_vae(config.vae, 16, 0), config.train, 0, "cpu")
trainer.train_step(np.zeros((4, 16, 16, 3), np.uint8))
print("torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
