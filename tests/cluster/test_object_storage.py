"""Run directory and images on S3: uploads that break off, lists that lag, credentials that are refused."""

from __future__ import annotations

import pytest
from cluster_helpers import ended
from moto.core.authorization import enable_iam_authentication
from stages_helpers import Tree, merge, start

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("attached")]


def uploaded(settings: Tree, name: str) -> Tree:
    """Settings of a copy of the run below the bucket."""
    place = f"s3://bucket/{name}"
    Location.of(settings["run_dir"]).copy_to(Location.of(place))
    return {**settings, "run_dir": place}


def test_uploads_that_break_off_and_lists_that_lag(s3, copied, save, tmp_path):
    copied = merge(copied, {"score": {"part_candidates": 180}})  # a part takes three requests
    ended(start("score", save(copied), "engine=inline", cwd=tmp_path))
    calm = RunDir(Location.of(copied["run_dir"])).require("score", "digest")
    settings = uploaded(copied, "run")
    RunDir(Location.of(settings["run_dir"])).reset("score")
    s3.break_off, s3.after = "/scores/part-", 30
    output = ended(start("score", save(settings), cwd=tmp_path), 1)
    assert "error: cannot write s3://bucket/run/scores/part-0000" in output
    assert s3.broken > 1  # it was tried again
    run = RunDir(Location.of(settings["run_dir"]))
    assert run.entry("score") is None
    done = len(run.finished_units("score"))
    assert 5 <= done < 25

    s3.break_off, s3.stale_seconds = "", 1.5
    ended(start("score", save(settings), cwd=tmp_path))
    entry = RunDir(Location.of(settings["run_dir"])).require("score")
    assert (entry["digest"], entry["rows_out"], entry["rows_resumed"]) == (calm, 4500, done * 180)
    ended(start("select", save(settings), cwd=tmp_path))


def test_credentials_that_are_refused(s3, copied, save, tmp_path):
    settings = uploaded(copied, "other")
    with enable_iam_authentication():
        output = ended(start("score", save(settings), cwd=tmp_path), 1)
    assert "error: cannot " in output
    assert "s3://bucket/other" in output
    assert "AWS_ACCESS_KEY_ID" in output  # what to look at
    absent = merge(settings, {"run_dir": "s3://no-such-bucket/run"})
    assert "no-such-bucket" in ended(start("score", save(absent), cwd=tmp_path), 1)
