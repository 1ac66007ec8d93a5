"""Whole runs of a tiny pipeline: in this process, and for tests that are marked so, on Ray: one session for all."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from markers import needs_ray
from PIL import Image
from stages_helpers import Finished, Tree

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.config import Config


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty made-up 20 x 20 px pictures: discs of several colours, sizes and places."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:20, 0:20]
    for n in range(60):
        cx, cy, r = rng.uniform(6, 14), rng.uniform(6, 14), rng.uniform(3, 6)
        disc = ((x - cx) ** 2 + (y - cy) ** 2 < r * r)[..., None]
        image = np.where(disc, rng.integers(0, 256, 3), rng.integers(0, 256, 3)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"disc-{n:03d}.png")
    return folder


@pytest.fixture(scope="session")
def base(pictures: Path) -> Tree:
    """Settings of a pipeline that runs in seconds; many small units give it a middle to be killed in. One actor each:
    to start another costs more than the work; tests where the number matters ask for theirs."""
    one = {"workers": {"count": 1}}
    optimisation = {"batch_size": 8, "checkpoint_every": 3, "log_every": 3}
    return {
        "engine": "inline",
        "data": {"source": str(pictures), "resolution": 16, "train": 44, "test": 16, "part_rows": 16, **one},
        "vae": {"latent_dim": 6, "channel_base": 128, "channel_max": 8, "mapping_layers": 1},
        "train": {"steps": 6, **optimisation},
        "finetune": {"steps": 30, "mixing": 1.0, **optimisation},
        "encode": {"batch_size": 8, **one},
        "score": {"n_candidates": 4500, "part_candidates": 18, **one},
        "decode": {"part_rows": 32, **one},
        "sample": one,
        "evaluate": one,
        "report": {"samples": 4, "bands": 3},
    }


@pytest.fixture
def tree(base: Tree, tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    """The settings, with a run directory that is still empty, and the engine that the test's markers name."""
    return {**base, "engine": "ray" if needs_ray(request.node) else "inline", "run_dir": str(tmp_path / "run")}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's default file belongs to the working folder: give each test its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def finished(base: Tree, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One whole undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    settings = {**base, "run_dir": str(folder / "run")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert run_command(Config.model_validate(settings), "run") == 0
    return Finished(settings, folder, out.getvalue())


@pytest.fixture
def copied(finished: Finished, tree: Tree) -> Tree:
    """Settings of a copy of the finished run, to be changed at will; not tracked."""
    shutil.copytree(finished.settings["run_dir"], tree["run_dir"])
    return {**tree, "tracking": {"enabled": False}}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Tree], Path]:
    """save(settings) -> path of a YAML file with them."""

    def write(settings: Tree) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write
