"""`ray job submit` as the README has it, to a head that wants a token; images and run directory are on S3."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_helpers import manifest, results
from heads import METRICS, RAY, TOKEN, Head
from mlflow import MlflowClient
from stages_helpers import Tree

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RUN = "s3://bucket/runs/celebahq"


def readme_command() -> list[str]:
    """The words of the first submission in README's section on clusters."""
    section = (ROOT / "README.md").read_text().split("## On a cluster")[1].split("\n## ")[0]
    found = re.findall(r"^    (ray job submit(?:.*\\\n)*.*)$", section, re.M)
    return shlex.split(found[0].replace("\\\n", " "))


class Jobs:
    """The README's commands, with the addresses of this test."""

    def __init__(self, head: Head, mlflow: str):
        self._head, self._mlflow = head, mlflow

    def run(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        here = {"http://127.0.0.1:8265": self._head.jobs, "http://mlflow:5000": self._mlflow}
        for name, place in here.items():
            words = tuple(w.replace(name, place) for w in words)
        assert words[0] == "ray"
        return subprocess.run(
            [RAY, *words[1:]],
            cwd=ROOT,
            env={**self._head.environment, **(environment or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def small(undisturbed: Tree) -> list[str]:
    """The settings of the tests' run as overrides, behind those of the README."""
    words = []
    for section, values in undisturbed.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if (section, name) != ("data", "source") and section != "tracking":
                words.append(f"{section}.{name}={value}")
    plain = ["train.objective.kl_warmup_steps=0"]
    gan = ["train.objective.adversarial.weight=0", "finetune.objective.adversarial.weight=0"]
    return [*plain, *words, *gan]


def test_the_commands_of_the_readme(head, s3, undisturbed, server):
    Location.of(undisturbed["data"]["source"]).copy_to(Location.of("s3://bucket/celeba-hq"))
    jobs, client = Jobs(head, server.uri), MlflowClient(server.uri)
    submit = readme_command()
    where, entry = submit[: submit.index("--")], submit[submit.index("--") :]
    address = where[3:5]
    assert address[0] == "--address"

    def status() -> str:
        (only,) = client.search_runs([client.get_experiment_by_name("ldsaug").experiment_id])
        return str(only.info.status)

    def until(reached: Callable[[], bool]) -> None:
        tick = threading.Event()
        for _ in range(1200):
            if reached():
                return
            tick.wait(0.1)
        raise AssertionError(jobs.run("ray", "job", "logs", *address, "first").stdout)

    refused = jobs.run(*submit, environment={"RAY_AUTH_TOKEN": TOKEN[::-1]})
    assert refused.returncode == 1
    assert "token" in refused.stdout.lower()

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    begun = jobs.run(*where, "--no-wait", "--submission-id", "first", *entry, *small(undisturbed))
    assert begun.returncode == 0, begun.stdout
    for stage in ("train", "score"):
        until(lambda stage=stage: re.search(rf'ray_ldsaug_rows_total\{{[^}}]*stage="{stage}"', metrics()) is not None)
    until(lambda: len(Location.of(f"{RUN}/_progress/score").files(".unit.json")) >= 20)
    stopped = jobs.run("ray", "job", "stop", *address, "first")
    assert stopped.returncode == 0, stopped.stdout
    assert "score" not in RunDir(Location.of(RUN)).manifest["stages"]
    assert status() == "KILLED"
    log = jobs.run("ray", "job", "logs", *address, "first").stdout
    assert "encode    100%" in log
    assert "run the same command again" in log

    done = jobs.run(*submit, *small(undisturbed))
    assert done.returncode == 0, done.stdout
    assert "prepare   already complete" in done.stdout
    assert "succeeded" in done.stdout
    assert status() == "FINISHED"
    assert results({"run_dir": RUN}) == results(undisturbed)
    assert manifest({"run_dir": RUN})["score"]["rows_resumed"] >= 20 * 18

    (only,) = client.search_runs([client.get_experiment_by_name("ldsaug").experiment_id])
    assert "report" in [file.path for file in client.list_artifacts(only.info.run_id)]
    assert only.data.metrics["encode/worker_cpu_seconds"] > 0

    plain = [*where[: where.index("--runtime-env-json")], *entry]
    untracked = jobs.run(*plain)
    assert untracked.returncode == 1
    assert "error: MLFLOW_TRACKING_URI is not set, and a file in a job's working folder" in untracked.stdout
    lost = jobs.run(*plain, "run_dir=runs/celebahq")
    assert lost.returncode == 1
    assert "error: run_dir runs/celebahq: a job's working folder goes with the job" in lost.stdout

    failed = jobs.run(*submit, "data.source=s3://bucket/nothing", "run_dir=s3://bucket/runs/other")
    assert failed.returncode == 1
    assert "error: data.source" in failed.stdout
    assert "Traceback" not in failed.stdout
