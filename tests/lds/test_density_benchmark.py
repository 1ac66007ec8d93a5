"""The benchmark's own answers: every method that gives the density must agree with float64."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks/density.py"


def test_quick_run_agrees() -> None:
    """`--quick` ends with an error where an exact method is off by more than 1e-4; no time is judged."""
    methods = ["ldsaug_ray", "ldsaug_ray, points", "torch.cdist + logsumexp", "scikit-learn KernelDensity"]
    ended = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--only", *methods], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Error" not in ended.stdout
    assert all(name.split()[0] in ended.stdout for name in methods)
