"""A run that is killed or stopped in the middle of a stage goes on, and ends as an undisturbed one does; so does a
training on another engine than the one that began it, or one that a version before left.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_helpers import ended, last_step, manifest, markers, results
from mlflow import MlflowClient
from stages_helpers import Tree, interrupt, merge, start

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import inline
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.stages.shared.checkpoints import Checkpoints

pytestmark = pytest.mark.cluster

# a Ray of the command's own, which dies with it: one CPU must do
ENGINES = [{"engine": "inline"}, {"engine": "ray", "ray": {"num_cpus": 1, "object_store_gb": 0.2}}]


def tracked(folder: Path) -> list[str]:
    """Status of each MLflow run."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return [run.info.status for run in client.search_runs([client.get_experiment_by_name("ldsaug").experiment_id])]


@pytest.mark.parametrize("engine", ENGINES, ids=["inline", "ray"])
def test_killed_in_encode_score_and_finetune(engine, encodes, undisturbed, save, tmp_path):
    settings = merge(encodes, engine)
    config = save(settings)
    when = {
        "encode": lambda: markers(settings, "encode") >= 1,
        "score": lambda: markers(settings, "score") >= 20,
        "finetune": lambda: last_step(settings) >= 6,
    }
    for stage, reached in when.items():
        interrupt(start("run", config, cwd=tmp_path), reached, signal.SIGKILL)
        assert stage not in manifest(settings)
    assert markers(settings, "score") == 250
    ended(start("run", config, cwd=tmp_path))

    assert results(settings) == results(undisturbed)
    assert manifest(settings)["score"]["rows_resumed"] >= 20 * 18
    assert manifest(settings)["finetune"]["resumed_from_step"] >= 6
    assert not (Path(settings["run_dir"]) / "finetune/checkpoints").exists()
    assert tracked(tmp_path) == ["FINISHED"]  # four commands, one run


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_stopped_from_outside_leaves_an_honest_state(engine, encodes, save, tmp_path, request):
    """Ctrl-C in `score`, then SIGTERM in `finetune`, while the driver works or waits inside Ray."""
    if engine == "ray":
        request.getfixturevalue("attached")
    settings = merge(encodes, {"engine": engine})
    config = save(settings)
    stops: list[tuple[signal.Signals, int, Callable[[], bool]]] = [
        (signal.SIGINT, 130, lambda: markers(settings, "score") >= 1),
        (signal.SIGTERM, 128 + signal.SIGTERM, lambda: last_step(settings) >= 3),
    ]
    for how, code, when in stops:
        process = start("run", config, cwd=tmp_path)
        output = interrupt(process, when, how)
        assert process.returncode == code, output
        assert "run the same command again" in output
        assert "Traceback" not in output
        assert tracked(tmp_path) == ["KILLED"]
    assert "finetune" not in manifest(settings)


def trains(settings: Tree) -> Tree:
    """The settings, with `finetune` to be done again."""
    RunDir(Location.of(settings["run_dir"])).reset("finetune")
    return settings


def paused(settings: Tree, monkeypatch: pytest.MonkeyPatch) -> int:
    """Train by engine: inline up to the next checkpoint, as if the process died there; gives the checkpoint's step."""

    def then_die(self: Checkpoints, step: int, *rest: object) -> None:
        save(self, step, *rest)
        raise Died

    class Died(BaseException):
        pass

    save = Checkpoints.save
    config = Config.model_validate({**settings, "engine": "inline"})
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", then_die)
        with pytest.raises(Died):
            run_command(config, "finetune")
    return last_step(settings)


def test_a_training_that_is_stopped_loses_no_step(copied, attached, save, tmp_path):
    """Ctrl-C, then SIGTERM, between checkpoints that are far apart; the ranks are on Ray Train."""
    settings = merge(trains(copied), {"finetune": {"steps": 300, "checkpoint_every": 60}})
    alone = {**settings, "run_dir": str(tmp_path / "alone"), "engine": "inline"}
    shutil.copytree(settings["run_dir"], alone["run_dir"])
    assert run_command(Config.model_validate(alone), "finetune") == 0
    config, stopped_at = save(settings), 0
    for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start("finetune", config, cwd=tmp_path)
        reached = 60 if stopped_at == 0 else stopped_at // 60 * 60 + 60
        output = interrupt(process, lambda reached=reached: last_step(settings) >= reached, how)
        assert process.returncode == code, output
        assert "Traceback" not in output
        stopped_at = last_step(settings)
        assert reached < stopped_at < 300
        assert f"finetune: saved at step {stopped_at}" in output
    ended(start("finetune", config, cwd=tmp_path))
    assert manifest(settings)["finetune"]["resumed_from_step"] == stopped_at
    assert results(settings) == results(alone)


def test_engines_take_turns_at_one_training(copied, undisturbed, attached, save, tmp_path, monkeypatch):
    settings = trains(copied)
    with monkeypatch.context() as patch:
        patch.delenv("RAY_ADDRESS")
        assert paused(settings, monkeypatch) == 3
    interrupt(start("finetune", save(settings), cwd=tmp_path), lambda: last_step(settings) >= 9, signal.SIGKILL)
    while attached.workers("RayTrainWorker"):  # the rank outlives its driver by a moment
        time.sleep(0.1)
    by_ray = last_step(settings)
    assert 9 <= by_ray < 30
    assert paused(settings, monkeypatch) == by_ray + 3
    output = ended(start("finetune", save(settings), cwd=tmp_path))
    assert manifest(settings)["finetune"]["resumed_from_step"] == by_ray + 3, output
    assert results(settings) == results(undisturbed)


def test_a_rank_begins_where_the_first_one_does(copied, undisturbed, monkeypatch):
    """Though the list that it sees has another checkpoint for the last."""
    settings = trains(copied)
    assert [paused(settings, monkeypatch) for _ in range(2)] == [3, 6]
    monkeypatch.setattr(inline._Rank, "agree", lambda self, value: {6: 3}.get(value, value))
    assert run_command(Config.model_validate({**settings, "engine": "inline"}), "finetune") == 0
    assert manifest(settings)["finetune"]["resumed_from_step"] == 3
    assert results(settings) == results(undisturbed)


def as_before(settings: Tree) -> None:
    """Leave the checkpoints as versions before 0.2 did: in Ray Train's folder, with Ray Train's list of those that are
    whole, and one that the kill cut off; begun with settings of which fewer counted."""
    folder = Path(settings["run_dir"]) / "finetune"
    digests = {stage: manifest(settings)[stage]["digest"] for stage in STAGES["finetune"].needs}
    begun = STAGES["finetune"].fingerprint(Config.model_validate(settings), digests, later=False)
    (folder.parent / "_progress/finetune/started.json").write_text(json.dumps({"fingerprint": begun}))
    names = {}
    for n, checkpoint in enumerate(sorted((folder / "checkpoints").iterdir())):
        names[n] = f"checkpoint_2026-01-02_03-04-{n:02d}.{n:06d}"
        shutil.move(checkpoint, folder / f"ray/run/{names[n]}")
    listed = [{"checkpoint_dir_name": name, "metrics": {"step": 3.0 * (n + 1)}} for n, name in names.items()]
    (folder / "ray/run/checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": listed}))
    cut_off = shutil.copytree(folder / f"ray/run/{names[0]}", folder / "ray/run/checkpoint_2026-01-02_03-05-00.000000")
    facts = json.loads((cut_off / "facts.json").read_text())
    facts["facts"]["steps"] = 12
    (cut_off / "facts.json").write_text(json.dumps(facts))
    (cut_off / "trainer.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints")


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_training_of_a_version_before_goes_on(engine, copied, undisturbed, save, tmp_path, monkeypatch, request):
    settings = merge(trains(copied), {"engine": engine})
    assert [paused(settings, monkeypatch) for _ in range(2)] == [3, 6]
    as_before(settings)
    assert last_step(settings) == 6
    if engine == "ray":
        request.getfixturevalue("attached")
    ended(start("finetune", save(settings), cwd=tmp_path))
    assert manifest(settings)["finetune"]["resumed_from_step"] == 6
    assert results(settings) == results(undisturbed)
    assert not (Path(settings["run_dir"]) / "finetune/ray").exists()
