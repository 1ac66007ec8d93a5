"""Searches whose driver or whose trials are killed, and trials that train at once on one cluster."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cluster_helpers import ended, last_step, manifest, network, results
from heads import Head
from mlflow import MlflowClient
from stages_helpers import Tree, digests, interrupt, merge, start, until

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.tracking import tracking_uri
from ldsaug_ray.search.trials import read_trials

pytestmark = pytest.mark.cluster


@pytest.fixture
def search(copied: Tree, mlflow_there: None, tmp_path: Path) -> Callable[..., Path]:
    """search(tune={...}, **changes) -> path of a file with a search that begins with the undisturbed run's latents."""

    def write(asked: Tree, **changes: Tree) -> Path:
        tree = merge(copied, {"score": {"n_candidates": 450, "sigma": {}}, "tracking": {"enabled": True}})
        file = tmp_path / "tune.yaml"
        file.write_text(yaml.safe_dump({**merge(tree, changes), "tune": asked}, sort_keys=False))
        return file

    return write


def children() -> list[tuple[str, str]]:
    """Name and status of each trial's MLflow run."""
    client = MlflowClient(tracking_uri())
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`ldsaug.trial` != ''")
    return sorted((r.info.run_name, r.info.status) for r in runs)


def states(folder: Path) -> list[str]:
    """Of the trials so far."""
    return [t.state for t in read_trials(Location.of(folder))]


def outcomes(folder: Path) -> list[tuple[object, ...]]:
    """What a search came to: of each trial its point, state and measures, and the digests of what it made."""
    trials = read_trials(Location.of(folder))
    made = {t.key: digests({"run_dir": str(folder / f"trials/{t.key}")}) for t in trials}
    return sorted((t.key, t.state, t.measures, t.curve, made[t.key]) for t in trials)


def kill_a_trial(search: Path, cwd: Path, head: Head, *options: str) -> str:
    """`ldsaug tune`, whose trials' only process is killed while they run; gives what was printed."""
    command = start("tune", search, *options, cwd=cwd)
    folder = next((Path(o.partition("=")[2]) for o in options if o.startswith("run_dir=")), Path("run"))
    until(lambda: "finished" in states(cwd / folder), command)
    (worker,) = head.workers("UnitActor")
    os.kill(worker, signal.SIGKILL)
    return ended(command)


def test_a_trial_that_crashes_is_tried_again_then_marked(search, attached, tmp_path):
    n = 100  # enough that their process dies well before the last of them is over
    space = {"select.top_fraction": {"low": 0.1, "high": 0.9, "values": n}}
    asked = {"space": space, "objectives": [{"a_nearer": 1.0}], "search": "grid", "max_failures": 0, "concurrent": 1}
    file = search(asked, score={"workers": {"count": 1}})
    output = kill_a_trial(file, tmp_path, attached)
    assert sorted(states(tmp_path / "run")) == ["crashed", *["finished"] * (n - 1)]
    assert "1 crashed; the same command tries them again" in output
    assert [status for _, status in children()].count("FAILED") == 1
    ended(start("tune", file, cwd=tmp_path))  # the crashed one alone
    assert set(states(tmp_path / "run")) == {"finished"}
    assert [status for _, status in children()] == ["FINISHED"] * n
    again = ("tune.max_failures=1", "seed=1", "run_dir=second", "tracking.enabled=false")
    kill_a_trial(file, tmp_path, attached, *again)
    assert states(tmp_path / "second") == ["finished"] * n


def test_two_trials_train_at_once_and_the_command_of_the_best_repeats_it(search, undisturbed, attached, tmp_path):
    """On Ray; `engine: inline`, one trial after another, finds the same, and so does the command."""
    many = {"workers": {"count": "auto"}}  # of each trial as many as there are CPUs: none must wait for ever
    file = search(
        {"space": {"select.top_fraction": [0.1, 0.6]}, "search": "grid", "register_as": "faces"},
        finetune={"steps": 6, "workers": {"count": 1, "cpus": 1}},
        decode=many,
        sample=many,
        evaluate={"extractor": network(tmp_path / "colours.pt"), "n": 20, "k": 3, **many},
    )
    output = ended(start("tune", file, cwd=tmp_path))
    starts = [output.index(f"trial {n}: select.top_fraction") for n in (1, 2)]
    ends = [output.index(f"trial {n}: finished") for n in (1, 2)]
    assert max(starts) < min(ends)
    (version,) = MlflowClient(tracking_uri()).search_model_versions("name = 'faces'")
    assert version.status == "READY"
    found = outcomes(tmp_path / "run")
    assert [state for _, state, *_ in found] == ["finished"] * 2
    assert all("finetune" in made for *_, made in found)

    shutil.copytree(undisturbed["run_dir"], tmp_path / "inline")
    there = (f"run_dir={tmp_path / 'inline'}", "engine=inline", "tracking.enabled=false", "tune.register_as=null")
    ended(start("tune", file, *there, cwd=tmp_path))
    assert outcomes(tmp_path / "inline") == found

    (line,) = [line for line in output.splitlines() if "its run again" in line]
    _, *words = shlex.split(line.partition("page of its own: ")[2])
    place = words[-1].removeprefix("run_dir=")
    shutil.copytree(undisturbed["run_dir"], place)  # images, model and latents are those of the search
    command, config, *options = words
    ended(start(command, Path(config), *options, "engine=inline", cwd=tmp_path))
    best = min(read_trials(Location.of(tmp_path / "run")), key=lambda t: t.measures["frechet"])
    assert line.startswith(f"trial {best.number}, ")
    again, first = (results({"run_dir": folder}) for folder in (place, str(tmp_path / f"run/trials/{best.key}")))
    for stage in ("score", "select", "decode", "finetune"):
        assert again[stage] == first[stage], stage
    told = json.loads((Path(place) / "evaluate/metrics.json").read_text())
    assert told["sets"]["finetuned"]["frechet"]["value"] == pytest.approx(best.measures["frechet"], rel=1e-6)


def test_a_trial_saves_before_it_is_stopped(search, attached, tmp_path):
    """SIGTERM while it trains on Ray, between checkpoints that are far apart."""
    file = search(
        {"space": {"select.top_fraction": [0.1]}, "search": "grid"},
        finetune={"steps": 300, "checkpoint_every": 60},
        evaluate={"extractor": network(tmp_path / "colours.pt"), "n": 20, "k": 3},
    )

    def step() -> int:
        return max([last_step({"run_dir": str(p)}) for p in (tmp_path / "run/trials").glob("*")], default=0)

    process = start("tune", file, cwd=tmp_path)
    output = interrupt(process, lambda: step() >= 60, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    stopped_at = step()
    assert 60 < stopped_at < 300
    assert f"trial 1: finetune: saved at step {stopped_at}" in output
    ended(start("tune", file, cwd=tmp_path))
    (trial,) = read_trials(Location.of(tmp_path / "run"))
    assert trial.state == "finished"
    assert (
        manifest({"run_dir": str(tmp_path / f"run/trials/{trial.key}")})["finetune"]["resumed_from_step"] == stopped_at
    )


def test_killed_while_a_trial_fine_tunes(search, undisturbed, attached, tmp_path):
    """Trials end as ordinary runs with their settings do; those that were over are not done again."""
    asked = {
        "space": {"select.top_fraction": [0.6, 0.1]},
        "search": "grid",
        "asha": {"grace_steps": 10, "reduction_factor": 4},
        "concurrent": 1,  # at once they may end at once, and none is seen to train after the other
    }
    file = search(
        asked,
        evaluate={"extractor": network(tmp_path / "colours.pt"), "n": 20, "k": 3},
        sample={"workers": {"cpus": 2}},
    )
    root = tmp_path / "run"

    def over() -> list[Path]:
        return [p for p in (root / "search/trials").glob("*.json") if '"running"' not in p.read_text()]

    def second_trains() -> bool:
        busy = [p for p in (root / "trials").glob("*") if (p / "finetune/checkpoints").exists()]
        return bool(over()) and any(last_step({"run_dir": str(p)}) for p in busy)

    interrupt(start("tune", file, cwd=tmp_path), second_trains, signal.SIGKILL)
    kept = {p: p.stat().st_mtime_ns for p in over()}
    assert len(kept) == 1
    ended(start("tune", file, "--resume", cwd=tmp_path))
    assert kept == {p: p.stat().st_mtime_ns for p in kept}
    trials = read_trials(Location.of(root))
    assert [t.number for t in trials] == [1, 2]
    assert [t.state for t in trials] == ["finished", "stopped"]  # one of four goes on
    assert [step for step, _ in trials[0].curve] == [10, 30]
    folders = {t.number: {"run_dir": str(root / f"trials/{t.key}")} for t in trials}
    rung = json.loads((root / f"trials/{trials[1].key}/rungs/000010/manifest.json").read_text())["stages"]
    assert rung["finetune"]["steps"] == 10
    assert rung["finetune"]["resumed_from_step"] >= 3  # the second trial was killed on its way to the rung
    assert [name for name, *_ in children()] == ["trial 1", "trial 2"]
    assert {status for _, status in children()} == {"FINISHED"}

    # paused at the rung and evaluated, the weights are those of a run that was not
    shutil.copytree(undisturbed["run_dir"], tmp_path / "alone")
    alone = [f"run_dir={tmp_path / 'alone'}", "engine=inline", "tracking.enabled=false", "evaluate.extractor=null"]
    ended(start("run", root / f"trials/{trials[0].key}/config.yaml", *alone, cwd=tmp_path))
    for stage in ("score", "select", "decode", "finetune"):
        assert results({"run_dir": str(tmp_path / "alone")})[stage] == results(folders[1])[stage]

    client = MlflowClient(tracking_uri())
    (best,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`ldsaug.best` = 'true'")
    assert [m.step for m in client.get_metric_history(best.info.run_id, "frechet")] == [10, 30]
    names = {a.path for a in client.list_artifacts(best.info.run_id)}
    assert {"selected.csv", "samples.png"} <= names
    assert best.outputs.model_outputs
