"""Taking over stages of another run directory: those of a version for which fewer settings counted too."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from stages_helpers import Tree

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.stages.shared.adopt import adopt
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import plan_steps

NAMES = ("prepare", "train", "encode", "score")


@pytest.mark.parametrize("by", ["this version", "one before", "other settings"])
def test_what_is_taken_over(by: str, copied: Tree, tmp_path: Path) -> None:
    config = Config.model_validate(copied)
    prepared = {"prepare": RunDir(Location.of(copied["run_dir"])).require("prepare", "digest")}
    train = STAGES["train"]
    now, before = (train.fingerprint(config, prepared, later=later) for later in (True, False))
    assert now != before  # train.workers.count is given
    file = Path(copied["run_dir"]) / "manifest.json"
    written = json.loads(file.read_text())
    assert written["stages"]["train"]["fingerprint"] == now
    written["stages"]["train"]["fingerprint"] = {"this version": now, "one before": before}.get(by, "0" * 64)
    file.write_text(json.dumps(written))
    inner = Config.model_validate({**copied, "run_dir": str(tmp_path / "arm")})
    job = Job(inner, open_run_dir(inner), Console(file=io.StringIO()), engine_of(inner))
    donor = RunDir(Location.of(copied["run_dir"]))
    assert tuple(adopt(job, NAMES, [donor])) == (NAMES if by != "other settings" else ("prepare",))
    if by != "other settings":
        assert {step.state for step in plan_steps(inner, job.run, NAMES)} == {"complete"}
        assert job.run.require("train", "digest") == donor.require("train", "digest")
