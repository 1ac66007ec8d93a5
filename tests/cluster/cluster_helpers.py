"""Helpers of the tests that kill: commands in processes of their own, how far they are, what they leave."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path
from typing import Any

from stages_helpers import Tree, manifest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.stages.shared.checkpoints import Checkpoints


def results(settings: Tree) -> dict[str, dict[str, Any]]:
    """Digest and exact counts of each complete stage: what no fault may change."""
    kept = ("digest", "rows_in", "rows_out", "rows_dropped", "rows_quarantined")
    return {stage: {k: entry[k] for k in kept} for stage, entry in manifest(settings).items() if stage != "report"}


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it printed, once it has ended with that exit code."""
    output = process.communicate()[0]
    assert process.returncode == code, output
    assert "Traceback" not in output, output
    return output


def markers(settings: Tree, stage: str) -> int:
    """Units that are done."""
    return len(list((Path(settings["run_dir"]) / f"_progress/{stage}").glob("*.unit.json")))


def last_step(settings: Tree, stage: str = "finetune") -> int:
    """Step of a training's last checkpoint; 0 before there is one."""
    last = Checkpoints(Location.of(settings["run_dir"]), stage).last()
    return 0 if last is None else last.step


def network(path: Path) -> str:
    """A TorchScript file to evaluate with: features of an image are its mean colours and their squares."""
    import torch

    class Colours(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            means = x.mean(dim=(2, 3))
            return torch.cat([means, means**2], dim=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.script(Colours()).save(str(path))
    return str(path)
