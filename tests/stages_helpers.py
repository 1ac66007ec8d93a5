"""Helpers of the tests of whole runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir

Tree = dict[str, Any]


class Finished(NamedTuple):
    """A whole run: its settings, the folder it was started in, what it printed."""

    settings: Tree
    folder: Path
    output: str


def merge(base: Tree, changes: Tree) -> Tree:
    """`changes` laid over `base`, section by section."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def copy_of(settings: Tree, folder: Path) -> Tree:
    """Settings of a copy of a run, `run` in the folder, to be changed at will."""
    shutil.copytree(settings["run_dir"], folder / "run")
    return {**settings, "run_dir": str(folder / "run")}


def manifest(settings: Tree) -> Tree:
    """The stages of a run directory's manifest."""
    return RunDir(Location.of(settings["run_dir"])).manifest["stages"]


def digests(settings: Tree) -> dict[str, str]:
    """Content digest of each complete stage."""
    return {stage: entry["digest"] for stage, entry in manifest(settings).items()}


def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that the process, which is not to end before, brings about."""
    tick = threading.Event()
    try:
        while not reached():
            assert process.poll() is None, f"it ended too early:\n{process.communicate()[0]}"
            tick.wait(0.02)
    except BaseException:  # else it would go on, and a later test be blamed for what it holds
        process.kill()
        process.communicate()
        raise


def interrupt(process: subprocess.Popen[str], when: Callable[[], bool], how: signal.Signals) -> str:
    """Send the signal to the driver as soon as `when()`; returns what it printed."""
    until(when, process)
    assert process.poll() is None, f"it ended before it could be stopped:\n{process.communicate()[0]}"
    os.kill(process.pid, how)
    return process.communicate()[0]


def start(
    command: str, config: Path, *options: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """`ldsaug COMMAND` in a process of its own (so that it can be killed)."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_JOB")}
    return subprocess.Popen(
        [sys.executable, "-m", "ldsaug_ray", command, str(config), *options],
        cwd=cwd,
        env={**inherited, **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def script(path: Path, scale: float = 1.0) -> str:
    """A TorchScript extractor in that file: mean colours of the four quarters, 12 features."""
    import torch

    class Colours(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(scale))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * self.scale

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Colours()).save(str(path))
    return str(path)


DOMAINS: dict[str, tuple[str, Tree]] = {  # what must be installed, settings
    "vectors": ("numpy", {"vae": {"kind": "mlp", "latent_dim": 3, "width": 32}, "evaluate": {"extractor": "values"}}),
    "molecules": (
        "selfies",
        {
            "data": {"source": "moses:demo", "max_length": 64, "notation": "selfies"},  # else few are valid so soon
            "vae": {"latent_dim": 4, "hidden": 24, "embedding": 8},
            "evaluate": {"extractor": "fingerprints"},
        },
    ),
    "audio": (
        "soundfile",
        {
            "data": {"source": "tones", "rate": 8_000, "seconds": 0.25},
            "vae": {"latent_dim": 4, "mels": 16, "channels": 16},
            "evaluate": {"extractor": "bands"},
        },
    ),
}


def of_domain(name: str, folder: Path) -> Tree:
    """Settings of a small run of another domain than images, in that folder. Skips where a package is missing."""
    needed, own = DOMAINS[name]
    pytest.importorskip(needed, reason=f"{needed} is not installed: pip install 'ldsaug_ray[{name}]'")
    one = {"workers": {"count": 1}}
    steps = {"steps": 10, "batch_size": 8, "checkpoint_every": 10, "log_every": 10, "learning_rate": 0.003, **one}
    common: Tree = {
        "domain": name,
        "run_dir": str(folder / "run"),
        "engine": "inline",
        "tracking": {"enabled": False},
        "data": {"train": 160, "test": 32, "part_rows": 16, **one},
        "train": {**steps, "steps": 40},
        "finetune": steps,
        "score": {"n_candidates": 900, **one},
        "select": {"top_count": 48},
        "decode": {"part_rows": 16, **one},
        "evaluate": {"n": 32, "k": 3, **one},
        "encode": one,
        "sample": one,
    }
    if name == "vectors":
        table = np.random.default_rng(0).normal(size=(384, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
        np.savetxt(folder / "rows.csv", table, delimiter=",", header="a,b,c,d,e,f", comments="")
        common["data"]["source"] = str(folder / "rows.csv")
    return merge(common, own)
