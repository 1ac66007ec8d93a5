"""`select.rank`: what is decoded is judged once, for any cut of the work, and ranks as brute force does."""

from __future__ import annotations

import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from stages_helpers import Tree, merge

from ldsaug_ray import augment
from ldsaug_ray.commands.plan import print_plan
from ldsaug_ray.config import Config
from ldsaug_ray.engines.inline import InlineEngine
from ldsaug_ray.errors import ConfigError, InputError, MissingStageError
from ldsaug_ray.lds import interpolate
from ldsaug_ray.models import decode_images, load_vae, posterior_means
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.selection import Rank
from ldsaug_ray.stages.select import choose, read_columns
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import run_stages

Closest = Rank(lambda codec, z, batch_size: -np.linalg.norm(z, axis=1), "closeness to the origin")
Unused = Rank(lambda codec, z, batch_size: z[:, 0], "the first number")
Nan = Rank(lambda codec, z, batch_size: np.full(len(z), math.nan), "nothing")
Short = Rank(lambda codec, z, batch_size: np.zeros(len(z) - 1), "one too few")
Fails = Rank(lambda codec, z, batch_size: 1 / 0, "nothing")


@pytest.fixture(scope="module")
def few(base: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A run up to `score`, of 180 candidates."""
    folder = tmp_path_factory.mktemp("rank")
    changes = {"score": {"n_candidates": 180, "part_candidates": 27}, "tracking": {"enabled": False}}
    tree = merge({**base, "run_dir": str(folder / "run")}, changes)
    run_stages(_job(tree), ["prepare", "train", "encode", "score"])
    return tree


def _job(tree: Tree, **select: Any) -> Job:
    config = Config.model_validate(merge(tree, {"select": select}))
    return Job(config, open_run_dir(config), Console(file=io.StringIO()), InlineEngine(config))


def _scores(job: Job) -> pa.Table:
    return pa.concat_tables(f.read_table() for f in job.run.folder("scores").files(".parquet")).sort_by("candidate")


def _selected(job: Job) -> list[int]:
    files = job.run.folder("selected").files(".parquet")
    return sorted(c for f in files for c in f.read_table()["candidate"].to_pylist())


def _cycle_errors(job: Job) -> np.ndarray:
    """Of every candidate, from pictures as they are stored."""
    latents, scores = read_latents(job.run, "train"), _scores(job)
    i, j = latents.rows(scores["parent_i"]), latents.rows(scores["parent_j"])
    z = interpolate(latents.z, i, j, scores["alpha"].to_numpy(), "linear")
    vae = load_vae(job.run.folder("train/vae.safetensors"))
    again = posterior_means(vae, decode_images(vae, z, 8), 8)
    return np.square(again.astype(np.float64) - z).mean(axis=1)


def test_those_with_the_least_cycle_error_are_kept(few: Tree) -> None:
    job = _job(few, rank="likelihood", top_fraction=0.2)
    run_stages(job, ["select"])
    error = _cycle_errors(job)
    want = np.argsort(error, kind="stable")[:36]
    assert error[want].max() < np.sort(error)[36] - 1e-6  # no tie at the edge
    assert _selected(job) == sorted(want.tolist())
    entry = job.run.require("select")
    assert entry["threshold_tau"] is None
    assert entry["rank"]["least"] == pytest.approx(-error[want].max(), rel=1e-4)
    assert "select.rank: likelihood" in entry["sentence"]
    assert "the densest" not in entry["sentence"]


def test_within_groups_and_alphas(few: Tree) -> None:
    job = _job(few, rank="likelihood", top_fraction=None, top_count=18, stratify=True)
    run_stages(job, ["select"])
    error = _cycle_errors(job)
    want = [a + 9 * k for a in range(9) for k in np.argsort(error[a::9], kind="stable")[:2]]
    assert _selected(job) == sorted(want)
    job = _job(few, rank="likelihood", top_fraction=None, top_count=44, balance="parent")
    run_stages(job, ["select"])
    scores = _scores(job)
    alpha, kept = scores["alpha"].to_numpy(), np.array(_selected(job))
    near = np.where(alpha > 0.5, scores["parent_j"].to_numpy(), scores["parent_i"].to_numpy())
    sure = ~np.isclose(alpha, 0.5)  # half-way chance says which parent is the nearer
    for parent in np.unique(near[kept]):
        mine = np.flatnonzero(sure & (near == parent))
        left = np.setdiff1d(mine, kept)
        if len(left) and len(taken := np.intersect1d(mine, kept)):
            assert error[taken].max() <= error[left].min() + 1e-9


def test_judged_once_and_resumed(few: Tree) -> None:
    job = _job(few, rank="likelihood", top_fraction=0.1)
    run_stages(job, ["select"])
    (folder,) = [p for p in (Path(few["run_dir"]) / "ranked").iterdir() if p.is_dir()]
    parts = sorted((folder / "parts").iterdir())
    assert len(parts) == 7
    before, digest = [p.stat().st_mtime_ns for p in parts], job.run.require("select", "digest")
    run_stages(_job(few, rank="likelihood", top_fraction=0.3), ["select"])
    assert [p.stat().st_mtime_ns for p in parts] == before
    markers = sorted((folder / "_progress/ranked").glob("*.unit.json"))
    for marker in markers[3:]:  # as a kill leaves it
        marker.unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["stages"]["ranked"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    again = _job(few, rank="likelihood", top_fraction=0.1)
    run_stages(again, ["select"])
    assert again.run.require("select", "digest") == digest
    assert [p.stat().st_mtime_ns == was for p, was in zip(parts, before, strict=True)] == [True] * 3 + [False] * 4


def test_a_rank_of_ones_own(few: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    job = _job(few, rank="test_rank:Closest", top_fraction=0.2)
    run_stages(job, ["select"])
    latents, scores = read_latents(job.run, "train"), _scores(job)
    i, j = latents.rows(scores["parent_i"]), latents.rows(scores["parent_j"])
    norm = np.linalg.norm(interpolate(latents.z, i, j, scores["alpha"].to_numpy(), "linear"), axis=1)
    assert _selected(job) == sorted(np.argsort(norm, kind="stable")[:36].tolist())
    assert "closeness to the origin" in job.run.require("select", "sentence")
    with pytest.raises(InputError, match=r"select\.rank: test_rank:Nan must give each candidate a number"):
        run_stages(_job(few, rank="test_rank:Nan"), ["select"])
    with pytest.raises(InputError, match=r"select\.rank: test_rank:Short must give each candidate a number"):
        run_stages(_job(few, rank="test_rank:Short"), ["select"])
    with pytest.raises(InputError, match=r"select\.rank test_rank:Fails failed \(ZeroDivisionError: division"):
        run_stages(_job(few, rank="test_rank:Fails"), ["select"])


def test_what_cannot_be_is_refused(few: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("tau", 0.1), ("typical", 0.5)):
        with pytest.raises(ValueError, match=f"{name} is a value of LDS, and rank is likelihood"):
            _job(few, rank="likelihood", **{name: value})
    with pytest.raises(ValueError, match=r"unknown select\.rank 'beauty'; possible: lds, likelihood"):
        _job(few, rank="beauty")
    with pytest.raises(ConfigError, match="rank = 'likelihood' decodes every candidate, and augment has no decoder"):
        augment(np.eye(9, dtype=np.float32), rank="likelihood")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    job = _job(few, rank="test_rank:Unused")
    with pytest.raises(MissingStageError, match="run `ldsaug select` with it first"):
        choose(job.config, job.run, _reader(job))


def _reader(job: Job) -> Any:
    return partial(read_columns, job.run.folder("scores").files(".parquet"))


def test_chance_needs_no_judge(few: Tree) -> None:
    job = _job(few, which="random", rank="likelihood", top_fraction=0.2)
    assert len(choose(job.config, job.run, _reader(job)).ids) == 36


def test_the_price_is_told(few: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in ("likelihood", "lds"):
        job = _job(few, rank=rank, top_fraction=0.05)
        print_plan(job.config, job.run, ["select"])
        told = capsys.readouterr().out
        assert ("every one of 180 candidates is decoded" in told) == (rank == "likelihood")
