"""The GPU's code, run by Triton's interpreter on a CPU, in a process of its own: the choice is made on import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lds_oracles import score
from scipy.special import logsumexp

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds import plan_pairs, score_pairs

pytest.importorskip("triton", reason="Triton comes with PyTorch for Linux")

SCRIPT = """
import sys, numpy as np
from ldsaug_ray.lds import score_block, score_pairs, score_points
given, out = np.load(sys.argv[1]), {}
z, pairs, sigmas = given["z"], given["pairs"], given["sigmas"]
for kind in ("linear", "slerp"):
    found = score_pairs(z, pairs, [0.1, 0.5, 1.2], sigmas, interpolation=kind, tile_latents=16)
    for name in ("log_lds", "log_lds_excluding_parents", "parent_share", "effective_neighbours"):
        out[kind + name] = getattr(found, name)
out["block"] = score_block(z, pairs[:2, 0], [7, 9, 11], [0.1, 0.3], sigmas[:1]).log_lds
out["points"] = score_points(z, given["points"], sigmas)
np.savez(sys.argv[2], **out)
"""


def test_sums_on_a_gpu_are_those_of_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((70, 12)).astype(np.float32) + np.float32(2)
    pairs = np.array([[0, 1], [2, 3], [0, 5], [69, 4]])
    points = rng.standard_normal((3, 12)).astype(np.float32)
    sigmas = np.array([0.1, 1.0, 3.0])  # the least is for float64
    np.savez(tmp_path / "given.npz", z=z, pairs=pairs, points=points, sigmas=sigmas)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "given.npz"), str(tmp_path / "found.npz")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    found = np.load(tmp_path / "found.npz")
    for kind in ("linear", "slerp"):
        for name, want in score(z, pairs, [0.1, 0.5, 1.2], list(sigmas), kind).items():
            np.testing.assert_allclose(found[kind + name], want, rtol=1e-4, atol=1e-5, err_msg=kind + name)
    for a, i in enumerate(pairs[:2, 0]):
        for b, j in enumerate((7, 9, 11)):
            want = score(z, np.array([[i, j]]), [0.1, 0.3], [0.1])["log_lds"]
            np.testing.assert_allclose(found["block"][a, b], want[0], rtol=1e-4, atol=1e-5)
    gaps = np.square(points.astype(np.float64)[:, None] - z.astype(np.float64)).sum(2)
    for s, sigma in enumerate(sigmas):
        want = logsumexp(-gaps / (2 * sigma**2), axis=1) - np.log(len(z))
        np.testing.assert_allclose(found["points"][:, s], want, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_real_gpu() -> None:
    z = np.random.default_rng(1).standard_normal((5000, 64)).astype(np.float32)
    pairs = plan_pairs(len(z), 300, 0)
    cpu, gpu = (score_pairs(z, pairs, [0.1, 0.5, 0.7], [1.0, 2.0], device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.log_lds, cpu.log_lds, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gpu.effective_neighbours, cpu.effective_neighbours, rtol=1e-4)


@pytest.mark.parametrize("device", ["tpu", "mps", "nonsense", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError, match="possible: cpu"):
        score_pairs(np.eye(3, dtype=np.float32), [[0, 1]], [0.5], [1.0], device=device)
