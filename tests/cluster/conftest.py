"""Runs in which something dies: one head with a job server for all of them, an S3 server, MLflow servers, and an
undisturbed run to compare with, which is made without Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster_helpers import ended
from heads import METRICS, RAY, Head
from mlflow_server import Server
from s3_server import S3
from stages_helpers import Tree, copy_of, merge, start

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir


@pytest.fixture(scope="session")
def undisturbed(base: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Settings of a whole run that nothing happened to, by engine: inline; to be copied, not changed. Many small units
    give it a middle to be killed in."""
    folder = tmp_path_factory.mktemp("undisturbed")
    changes = {"run_dir": str(folder / "run"), "tracking": {"enabled": False}, "score": {"part_candidates": 18}}
    settings = merge(base, changes)
    del settings["engine"]  # of a copy it is ray
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    ended(start("run", config, "engine=inline", cwd=folder))
    return settings


@pytest.fixture
def copied(undisturbed: Tree, tmp_path: Path) -> Tree:
    """Settings of a copy of the undisturbed run, to be changed at will, by engine: ray."""
    return copy_of(undisturbed, tmp_path)


@pytest.fixture
def encodes(copied: Tree, mlflow_there: None) -> Tree:
    """As `copied`, with images and baseline model alone: `run` begins with encode, and MLflow tracks it."""
    run = RunDir(Location.of(copied["run_dir"]))
    for stage in ("encode", "score", "select", "decode", "finetune", "report"):
        run.reset(stage)
    return merge(copied, {"tracking": {"enabled": True}})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's default file belongs to the working folder: give each test its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """An S3 server with the bucket `bucket`."""
    served = S3()
    yield served
    served.stop()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The same; this test's commands find it, and what it did to them ends with the test."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    s3_server.be_steady()


@pytest.fixture(scope="session")
def head(s3_server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One node with two CPUs, a job server, and metrics; it wants a token, and its jobs find the S3 server."""
    environment = {
        **s3_server.environment,
        "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",  # as in an activated environment
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_metrics_report_interval_ms": "500",
    }
    options = ["--num-cpus=2", "--object-store-memory=200000000", f"--metrics-export-port={METRICS}"]
    made = Head(tmp_path_factory.mktemp("head"), *options, environment=environment)
    yield made
    made.stop()


@pytest.fixture
def attached(head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """The same; this test's commands attach to it."""
    head.attach(monkeypatch)
    return head


@pytest.fixture
def server(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An MLflow server that tracks this test's runs."""
    served = Server(tmp_path, migrated)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    served.start()
    yield served
    served.stop()
