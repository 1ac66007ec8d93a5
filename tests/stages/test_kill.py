"""A run killed with SIGKILL in the middle of a stage goes on, and ends as an undisturbed one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stages_helpers import Tree, digests, manifest, merge, start

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import CHECKPOINTS, SNAPSHOT, RunDir

pytestmark = pytest.mark.slow


def interrupt(process: subprocess.Popen[str], when: Callable[[], bool], how: signal.Signals) -> str:
    """Send the signal to the driver as soon as `when()`; returns what it printed."""
    tick = threading.Event()
    while process.poll() is None and not when():
        tick.wait(0.02)
    assert process.poll() is None, f"it ended before it could be stopped:\n{process.communicate()[0]}"
    os.kill(process.pid, how)
    return process.communicate()[0]


def markers(settings: Tree, stage: str) -> int:
    return len(list((Path(settings["run_dir"]) / f"_progress/{stage}").glob("*.unit.json")))


def checkpoints(settings: Tree, stage: str) -> int:
    """How many Ray Train has taken note of: a folder alone would not be found again."""
    snapshot = Path(settings["run_dir"]) / f"{stage}/{CHECKPOINTS}/{SNAPSHOT}"
    try:
        return len(json.loads(snapshot.read_text())["checkpoint_results"])
    except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or being written
        return 0


@pytest.fixture
def killed(copied: Tree) -> Tree:
    """Settings of a run whose images and first VAE are there, with MLflow and a Ray of its own: one CPU must do."""
    run = RunDir(Location.of(copied["run_dir"]))
    for stage in ("encode", "score", "select", "decode", "finetune", "report"):
        run.reset(stage)
    run.note("mlflow", None)
    return merge(copied, {"ray": {"num_cpus": 1, "object_store_gb": 0.2}, "tracking": {"enabled": True}})


def test_killed_in_encode_score_and_finetune(killed, finished, save, tmp_path):
    settings, calm = killed, finished.settings
    config = save(settings)
    when = {
        "encode": lambda: markers(settings, "encode") >= 1,
        "score": lambda: markers(settings, "score") >= 20,
        "finetune": lambda: checkpoints(settings, "finetune") >= 2,
    }
    for stage, reached in when.items():
        interrupt(start("run", config, cwd=tmp_path), reached, signal.SIGKILL)
        assert stage not in manifest(settings)
    assert markers(settings, "score") == 250
    last = start("run", config, cwd=tmp_path)
    output = last.communicate()[0]
    assert last.returncode == 0, output

    for stage in ("prepare", "train", "encode", "score", "select", "decode", "finetune"):
        one, two = manifest(settings)[stage], manifest(calm)[stage]
        assert [one[k] for k in one if k.startswith("rows_") and k not in ("rows_resumed", "rows_per_second")] == [
            two[k] for k in two if k.startswith("rows_") and k not in ("rows_resumed", "rows_per_second")
        ]
    assert manifest(settings)["score"]["rows_resumed"] >= 20 * 18
    assert manifest(settings)["finetune"]["resumed_from_step"] >= 3
    assert {s: d for s, d in digests(settings).items() if s != "report"} == {
        s: d for s, d in digests(calm).items() if s != "report"
    }
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (only,) = client.search_runs([client.get_experiment_by_name("ldsaug").experiment_id])  # four commands, one run
    assert only.info.status == "FINISHED"


def test_stopped_from_outside_leaves_an_honest_state(killed, save, tmp_path):
    """Ctrl-C in `score`, then SIGTERM in `finetune`, while the driver waits inside Ray."""
    config = save(killed)
    stops: list[tuple[signal.Signals, int, Callable[[], bool]]] = [
        (signal.SIGINT, 130, lambda: markers(killed, "score") >= 1),
        (signal.SIGTERM, 128 + signal.SIGTERM, lambda: checkpoints(killed, "finetune") >= 1),
    ]
    for how, code, when in stops:
        process = start("run", config, cwd=tmp_path)
        output = interrupt(process, when, how)
        assert process.returncode == code, output
        assert "run the same command again" in output
        assert "Traceback" not in output
        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        (only,) = client.search_runs([client.get_experiment_by_name("ldsaug").experiment_id])
        assert only.info.status == "KILLED"
    assert "finetune" not in manifest(killed)
