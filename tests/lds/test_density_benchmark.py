"""The benchmark's own answers: every method that gives the density must agree with float64."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

BENCHMARK = str(Path(__file__).parents[2] / "benchmarks/density.py")


def test_quick_run_agrees(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quick` ends with an error where an exact method is off by more than 1e-4; no time is judged.

    The first method is measured in a process of its own, as all are by the benchmark; the others here.
    """
    measured = runpy.run_path(BENCHMARK)["measure"]
    start, processes = subprocess.run, []

    def measure(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        name, folder, sigma, threads = command[-4:]
        if not processes:
            processes.append(name)
            return start(command, **options)
        return subprocess.CompletedProcess(
            command, 0, json.dumps(measured(name, Path(folder), float(sigma), int(threads)))
        )

    methods = ["ldsaug_ray", "ldsaug_ray, points", "torch.cdist + logsumexp", "scikit-learn KernelDensity"]
    monkeypatch.setattr(subprocess, "run", measure)
    monkeypatch.setattr(sys, "argv", [BENCHMARK, "--quick", "--threads", "1", "--only", *methods])
    runpy.run_path(BENCHMARK, run_name="__main__")
    out = capsys.readouterr().out
    assert processes == methods[:1]
    assert "Error" not in out
    assert all(name.split()[0] in out for name in methods)
