"""Several bandwidths in one pass: the same files as stage `score` writes for each alone, and resumable."""

from __future__ import annotations

from pathlib import Path

from stages_helpers import digests, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.stages.score import score_at
from ldsaug_ray.stages.shared.job import Job


def test_each_bandwidth_is_what_it_is_alone(copied, tmp_path):
    rules = [{"scale": 0.15}, {"scale": 0.4}, {"rule": "nearest_neighbour"}, {"rule": "fixed", "value": 0.7}]
    configs = [Config.model_validate(merge(copied, {"score": {"sigma": rule}})) for rule in rules]
    job = Job(configs[0], open_run_dir(configs[0], create=False), make_console(), engine_of(configs[0]))
    runs = []
    for k in range(len(rules)):
        run = RunDir(Location.of(tmp_path / f"sigma-{k}"))
        run.create()
        runs.append(run)
    targets = list(zip(configs, runs, strict=True))
    score_at(job, targets)
    for config, run in targets:
        assert run_command(config, "score") == 0
        assert digests(copied)["score"] == run.require("score", "digest")

    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("sigma-*/**/*.parquet")}
    score_at(job, targets)
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    # an attempt that died: two markers of the carrier are gone, and one of another run directory
    before = [run.require("score", "digest") for run in runs]
    for run in runs:
        run.manifest["stages"].pop("score")
        run.note("format", 1)
    lost = [tmp_path / f"sigma-{k}/_progress/score/{n:06d}.unit.json" for k, n in ((0, 1), (0, 2), (2, 3))]
    for marker in lost:
        marker.unlink()
    score_at(job, targets)
    assert [run.require("score", "digest") for run in runs] == before
    again = {p.name for p in (tmp_path / "sigma-1/scores").iterdir() if p.stat().st_mtime_ns != stamps.get(p)}
    assert again == {"part-000001.parquet", "part-000002.parquet", "part-000003.parquet"}
    assert all(Path(marker).exists() for marker in lost)
