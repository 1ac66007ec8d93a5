"""What all tests share: where the real data is, one Ray, one tiny whole run; and that tests stay on this machine."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from stages_helpers import Finished, Tree

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.config import Config

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):  # a developer's own cluster and server are not for tests
    os.environ.pop(_name, None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in its background has it ignored


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real faces and models; the test is skipped where there is none."""
    folder = Path(os.environ.get("LDSAUG_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is absent (LDSAUG_SHARED names another place)")
    return folder


def needs_ray(test: pytest.Item) -> bool:
    """Whether the test is marked for Ray, in the shared session or in clusters of its own."""
    return any(test.get_closest_marker(name) is not None for name in ("ray", "cluster"))


@pytest.fixture(autouse=True)
def _without_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without a marker starts no Ray, and neither it nor what it tests waits for a clock; libraries may."""
    if needs_ray(request.node):
        return
    assert "ray_local" not in request.fixturenames, "a test with ray_local is marked ray"
    monkeypatch.setattr("ray.init", _no_ray)
    monkeypatch.setattr("time.sleep", partial(_sleep_of_libraries, time.sleep))


def _no_ray(*_: object, **__: object) -> None:
    raise AssertionError("ray.init in a test that is not marked ray or cluster")


def _sleep_of_libraries(sleep: Callable[[float], None], seconds: float) -> None:
    file = sys._getframe(1).f_code.co_filename
    if "site-packages" not in file and file.startswith(str(Path(__file__).parents[1])):
        raise AssertionError(f"time.sleep by {file} in a test that is not marked ray or cluster")
    sleep(seconds)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray with two CPUs for all tests that are marked so."""
    from ldsaug_ray.engines.ray.session import ray_session

    config = Config.model_validate(
        {"run_dir": "unused", "data": {"source": "sklearn:digits"}, "ray": {"num_cpus": 2, "object_store_gb": 0.5}}
    )
    with ray_session(config):
        yield


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with all its tables: to make these takes longer than most tests."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def mlflow_there(migrated: Path, tmp_path: Path) -> None:
    """A copy of it where a test in this folder has its runs by default."""
    shutil.copy(migrated, tmp_path / "mlflow.db")


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
    """Settings of a pipeline that runs in seconds, in a few units. One actor each: to start another costs more than the
    work; tests where the number matters ask for theirs."""
    one = {"workers": {"count": 1}}
    optimisation = {"batch_size": 8, "checkpoint_every": 3, "log_every": 3, **one}
    return {
        "engine": "inline",
        "data": {"source": str(pictures), "resolution": 16, "train": 44, "test": 16, "part_rows": 16, **one},
        "vae": {"latent_dim": 6, "channel_base": 128, "channel_max": 8, "mapping_layers": 1},
        "train": {"steps": 6, **optimisation},
        "finetune": {"steps": 30, "mixing": 1.0, **optimisation},
        "encode": {"batch_size": 8, **one},
        "score": {"n_candidates": 4500, "part_candidates": 180, **one},
        "decode": {"part_rows": 32, **one},
        "sample": one,
        "evaluate": one,
        "report": {"samples": 4, "bands": 3},
    }


@pytest.fixture
def tree(base: Tree, tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    """The settings, with a run directory that is still empty, and the engine that the test's markers name."""
    return {**base, "engine": "ray" if needs_ray(request.node) else "inline", "run_dir": str(tmp_path / "run")}


@pytest.fixture(scope="session")
def finished(base: Tree, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One whole undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(migrated, folder / "mlflow.db")
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
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return path

    return write
