"""Run directory and images on S3: uploads that break off, lists that lag, credentials that are refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.core.authorization import enable_iam_authentication
from moto.server import DomainDispatcherApplication, create_backend_app
from stages_helpers import Tree, merge, start
from werkzeug.serving import WSGIRequestHandler, make_server

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import RunDir

pytestmark = pytest.mark.slow


def uploaded(settings: Tree, name: str) -> Tree:
    """Settings of a copy of the run below the bucket."""
    place = f"s3://bucket/{name}"
    Location.of(settings["run_dir"]).copy_to(Location.of(place))
    return {**settings, "run_dir": place}


def ended(settings: Tree, save: Any, command: str, folder: Path) -> tuple[int, str]:
    process = start(command, save(settings), cwd=folder)
    output = process.communicate()[0]
    return process.returncode, output


def test_uploads_that_break_off_and_lists_that_lag(unsteady, copied, save, tmp_path):
    copied = merge(copied, {"score": {"part_candidates": 180}})  # a part takes three requests
    assert run_command(Config.model_validate(copied), "score") == 0
    calm = RunDir(Location.of(copied["run_dir"])).require("score", "digest")
    settings = merge(uploaded(copied, "run"), {"ray": {"num_cpus": 1}})
    RunDir(Location.of(settings["run_dir"])).reset("score")
    unsteady.break_off, unsteady.after = "/scores/part-", 30
    code, output = ended(settings, save, "score", tmp_path)
    assert code == 1, output
    assert "error: cannot write s3://bucket/run/scores/part-0000" in output
    assert "Traceback" not in output
    assert unsteady.broken > 3  # it was tried again
    run = RunDir(Location.of(settings["run_dir"]))
    assert run.entry("score") is None
    done = len(run.finished_units("score"))
    assert 5 <= done < 25

    unsteady.break_off, unsteady.stale_seconds = "", 1.5
    code, output = ended(settings, save, "score", tmp_path)
    assert code == 0, output
    entry = RunDir(Location.of(settings["run_dir"])).require("score")
    assert (entry["digest"], entry["rows_out"], entry["rows_resumed"]) == (calm, 4500, done * 180)
    code, output = ended(settings, save, "select", tmp_path)
    assert code == 0, output


def test_credentials_that_are_refused(unsteady, copied, save, tmp_path):
    settings = merge(uploaded(copied, "other"), {"ray": {"num_cpus": 1}})
    with enable_iam_authentication():
        code, output = ended(settings, save, "score", tmp_path)
    assert code == 1, output
    assert "error: cannot " in output
    assert "s3://bucket/other" in output
    assert "AWS_ACCESS_KEY_ID" in output  # what to look at
    assert "Traceback" not in output
    code, output = ended(merge(settings, {"run_dir": "s3://no-such-bucket/run"}), save, "score", tmp_path)
    assert code == 1, output
    assert "no-such-bucket" in output
    assert "Traceback" not in output
