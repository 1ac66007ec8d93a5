"""Helpers of the tests of whole runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
