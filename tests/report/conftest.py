"""Small finished runs, in this process, on scikit-learn's digits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ldsaug_ray.config import Config
from ldsaug_ray.engines.inline import InlineEngine
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import run_stages

HOSTILE = "<script>alert(1)</script>.png"


def _settings(run_dir: Path, source: str, changes: dict[str, Any]) -> Config:
    tree: dict[str, Any] = {
        "run_dir": str(run_dir),
        "data": {"source": source, "resolution": 16, "upscale": True, "train": 120, "test": 24, "part_rows": 64},
        "vae": {"latent_dim": 16, "channel_base": 128, "channel_max": 16, "mapping_layers": 2},
        "train": {"steps": 30, "batch_size": 16, "log_every": 5, "objective": {"beta": 0.05}},
        "finetune": {"steps": 10, "batch_size": 16},
        "score": {"n_candidates": 1500, "part_candidates": 512},
        "select": {"top_fraction": 0.2},
        "decode": {"batch_size": 32},
        "report": {"samples": 6, "bands": 4},
        "tracking": {"enabled": False},
        "engine": "inline",
    }
    for name, section in changes.items():
        tree[name] = {**tree[name], **section} if isinstance(section, dict) else section
    return Config.model_validate(tree)


def job_of(config: Config) -> Job:
    """A job with a silent console."""
    return Job(config, open_run_dir(config), Console(file=io.StringIO()), InlineEngine(config))


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny matrices: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def make_run(run_dir: Path, source: str = "sklearn:digits", finetune: bool = True, **changes: Any) -> Job:
    """A run directory with every stage before `report` complete; `changes` are sections of the settings."""
    job = job_of(_settings(run_dir, source, changes))
    run_stages(job, ["prepare"])
    job.run.manifest["stages"].pop("prepare")  # as a kill after the first unit leaves it
    job.run.note("format", 1)
    for marker in sorted((run_dir / "_progress/prepare").glob("*.unit.json"))[1:]:
        marker.unlink()
    before = ["prepare", "train", "encode", "score", "select"]
    run_stages(job, [*before, "decode", "finetune"] if finetune else before)
    return job


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    """The same for reading the runs."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def digits_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Digits with attributes, fine-tuned."""
    folder = tmp_path_factory.mktemp("digits") / "a run"
    return make_run(folder, data={"attributes": "columns"})


@pytest.fixture(scope="session")
def rules_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Digits under the rules that look at the latents: sigma by the parents' share, a band of held-out real latents."""
    return make_run(
        tmp_path_factory.mktemp("rules") / "run",
        finetune=False,
        train={"steps": 2, "batch_size": 16},
        score={"n_candidates": 1500, "sigma": {"rule": "parent_share", "share": 0.2}},
        select={"tau": "auto", "typical": 0.5, "top_fraction": 0.9, "stratify": True},
    )


@pytest.fixture(scope="session", params=["none", "random"])
def control_job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Digits of which nothing is selected, or what chance selects."""
    return make_run(
        tmp_path_factory.mktemp(request.param) / "run",
        finetune=request.param == "random",
        data={"attributes": "columns"},
        train={"steps": 2, "batch_size": 16},
        select={"which": request.param},
    )


@pytest.fixture(scope="session")
def folder_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Hostile names and a broken image, no attributes, no test images; one candidate selected; not fine-tuned."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    (folder / "<script>alert(1)<").mkdir()
    for n in range(10):
        name = HOSTILE if n == 0 else f"a{n}&b.png"
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / name)
    (folder / "<img src=x onerror=alert(2)>.png").write_bytes(b"not an image")
    return make_run(
        tmp_path_factory.mktemp("run") / "<b>bold",
        str(folder),
        finetune=False,
        data={"train": 1.0, "test": 0.0, "upscale": False, "part_rows": 16, "max_quarantined_fraction": 1.0},
        train={"steps": 2, "batch_size": 4, "objective": {"beta": 0.05}},
        score={"n_candidates": 90},
        select={"top_fraction": None, "top_count": 1, "exclude_parents": True},
    )
