"""Whole searches on the tiny run: without training over sigma and tau, and with it, killed in the middle."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient
from ray.tune.search import Searcher
from stages_helpers import Tree, digests, merge

from ldsaug_ray.cli import main
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, Tune, load_config
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.tracking import tracking_uri
from ldsaug_ray.search.plan import plan_search
from ldsaug_ray.search.sampler import open_sampler
from ldsaug_ray.search.space import Dimension, Point, Space
from ldsaug_ray.search.trials import Trial, key_of, read_trials
from ldsaug_ray.stages import _trial, tune

pytestmark = pytest.mark.slow

SPACE = {"score.sigma.scale": [0.2, 0.5], "select.top_fraction": [0.1, 0.5]}


@pytest.fixture
def search(copied: Tree, tmp_path: Path) -> Callable[..., Path]:
    """search(tune={...}, **changes) -> path of a file with a search that begins with the finished run's latents."""

    def write(asked: Tree, **changes: Tree) -> Path:
        tree = merge(
            merge(copied, {"score": {"n_candidates": 450, "sigma": {}}, "tracking": {"enabled": True}}), changes
        )
        file = tmp_path / "tune.yaml"
        file.write_text(yaml.safe_dump({**tree, "tune": asked}, sort_keys=False))
        return file

    return write


def children() -> list[tuple[str, str, str]]:
    """Name, status and state of each trial's MLflow run."""
    client = MlflowClient(tracking_uri())
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`ldsaug.trial` != ''")
    return sorted((r.info.run_name, r.info.status, r.data.tags.get("ldsaug.state", "")) for r in runs)


@pytest.mark.usefixtures("ray_local")
def test_a_search_without_training(search, copied, tmp_path, capsys):
    objectives = [{"a_nearer": 1.0, "a_likelihood": 0.5}]
    file = search({"space": SPACE, "objectives": objectives, "search": "grid"})
    assert main(["tune", str(file), "--resume"]) == 1
    assert "there is no search in" in capsys.readouterr().err
    assert main(["tune", str(file), "--dry-run"]) == 0
    assert "4 trials by grid, 2 scorings" in capsys.readouterr().out
    assert not (tmp_path / "run/search").exists()
    before = digests(copied)

    assert main(["tune", str(file)]) == 0
    output = capsys.readouterr()
    assert "trial 1: score.sigma.scale=0.2, select.top_fraction=0.1" in output.err
    assert "the best of 4 trials" in output.out
    assert {k: digests(copied)[k] for k in ("prepare", "train", "encode")} == {
        k: before[k] for k in ("prepare", "train", "encode")
    }  # nothing that was there is done again
    trials = read_trials(Location.of(tmp_path / "run"))
    assert [t.state for t in trials] == ["finished"] * 4
    assert [t.measures["kept"] for t in trials] == [45, 225, 45, 225]
    assert all(0 <= t.measures["a_nearer"] <= 1 for t in trials)
    low, high = (t.measures["effective_neighbours"] for t in (trials[0], trials[2]))
    assert low < high  # with a wider kernel more neighbours count
    rows = list(csv.DictReader((tmp_path / "run/search/trials.csv").read_text().splitlines()))
    title = "a_nearer + 0.5 -a_likelihood"
    for row, t in zip(rows, trials, strict=True):
        assert float(row[title]) == pytest.approx(t.measures["a_nearer"] - 0.5 * t.measures["a_likelihood"])
    assert children() == [(f"trial {n}", "FINISHED", "finished") for n in range(1, 5)]
    page = (tmp_path / "run/search/index.html").read_text()
    assert page.count("<figure") == 5
    best = min(rows, key=lambda row: float(row[title]))
    assert f"Trial {best['trial']} is the best of 4 finished ones" in page
    assert f"select.top_fraction={best['select.top_fraction']} run_dir=" in page
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`ldsaug.best` = 'true'")
    selected = Path(client.download_artifacts(run.info.run_id, "selected.csv", str(tmp_path)))
    assert len(selected.read_text().splitlines()) == 1 + float(best["kept"])

    # A of a trial is what an ordinary run with these settings selects
    tree = load_config(str(file), ["score.sigma.scale=0.5", "select.top_fraction=0.5"])
    assert run_command(tree, "score") == run_command(tree, "select") == 0
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())["stages"]
    assert (
        manifest["score"]["digest"]
        == json.loads(
            next(p for p in (tmp_path / "run/scorings").glob("*/manifest.json") if "0.5" in str(_scale(p))).read_text()
        )["stages"]["score"]["digest"]
    )
    assert manifest["select"]["rows_out"] == trials[3].measures["kept"]

    # again: nothing is left; a wider space: what is new, in the same MLflow search; a point that keeps nothing is told
    capsys.readouterr()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}
    assert main(["tune", str(file), "--resume"]) == 0
    assert "every trial is over already" in capsys.readouterr().err
    wider = "tune.space={score.sigma.scale: [0.2, 0.5], select.top_fraction: [0.1, 0.5], select.tau: [null, 0.999999]}"
    assert main(["tune", str(file), wider]) == 0
    output = capsys.readouterr()
    assert "4 cannot work with their settings" in output.out
    assert "failed: select.tau = 0.999999 keeps none" in output.err
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    assert len(children()) == 12
    assert sum(status == "FAILED" for _, status, _ in children()) == 4


def _scale(manifest: Path) -> float:
    return json.loads(manifest.read_text())["stages"]["score"]["sigma_numbers"]["scale"]


class _Told:
    """Trials as they were told of."""

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}

    def begin(self, point: Point) -> Trial:
        trial = self.trials.setdefault(key_of(point), Trial(point, len(self.trials) + 1, ""))
        self.trials[trial.key] = replace(trial, state="running")
        return self.trials[trial.key]

    def told(self, key: str, found: Any) -> None:
        pass

    def end(self, key: str, *, stopped: bool = False, crashed: str = "") -> Trial:
        self.trials[key] = replace(self.trials[key], state="crashed" if crashed else "finished")
        return self.trials[key]


def test_a_crashed_trial_is_given_again_however_often_tune_says_so():
    """Tune says twice that an actor died where it died between two trials."""
    from ldsaug_ray.engines.ray.trials import _Points

    kept = _Told()
    sampler = open_sampler(Tune(search="grid"), Space((Dimension("select.top_fraction", (0.1, 0.5)),)), [])
    points = _Points(sampler, kept, float("inf"), max_failures=1)
    first = points.suggest("a")
    points.end("a", crashed="died")
    points.end("a", crashed="died")
    assert points.suggest("b") == first
    points.end("b", crashed="died")
    assert kept.trials[key_of(first["point"])].state == "crashed"
    second = points.suggest("c")
    assert second["point"] != first["point"]
    assert points.suggest("d") is None  # the one that runs may crash
    points.end("c")
    assert points.suggest("e") == Searcher.FINISHED


def test_no_trial_starts_when_time_is_over():
    from ldsaug_ray.engines.ray.trials import _Points

    kept = _Told()
    sampler = open_sampler(Tune(search="grid"), Space((Dimension("select.top_fraction", (0.1, 0.5)),)), [])
    assert _Points(sampler, kept, time.monotonic(), max_failures=1).suggest("a") == Searcher.FINISHED
    assert not kept.trials


def test_a_trial_that_goes_on_is_judged_once_at_a_rung():
    """By itself, with what it came to there before, it would be stopped."""
    from ldsaug_ray.engines.ray.trials import _scheduler

    asked = Tune(objectives=[{"frechet": 1}], asha={"grace_steps": 10, "reduction_factor": 3})
    known = [
        Trial({"select.tau": tau}, 1, "", state, curve=((10, {"frechet": value}),))
        for tau, value, state in ((0.1, 10.0, "finished"), (0.2, 4.0, "finished"), (0.3, 5.0, "running"))
    ]
    scheduler = _scheduler(asked, known)
    without = float("inf")  # a measure has no value yet
    judged = (0.3, 5.0, "CONTINUE"), (0.6, without, "CONTINUE"), (0.4, 5.5, "STOP"), (0.5, 3.0, "CONTINUE")
    for tau, value, action in judged:
        trial = SimpleNamespace(trial_id="as Tune has it", config={"point": {"select.tau": tau}})
        scheduler.on_trial_add(None, trial)
        assert scheduler.on_trial_result(None, trial, {"step": 10, "objective": value}) == action
        if value == without:
            scheduler.on_trial_complete(None, trial, {"step": 30, "objective": value})


def test_how_many_trials_run_at_once(tmp_path, monkeypatch):
    (tmp_path / "network.pt").write_bytes(b"")
    small, gpus = {"CPU": 4, "memory": 64e9}, {"CPU": 16, "GPU": 4, "memory": 64e9}
    for nodes, overrides, one_gpu, count in (
        ([small], [], False, 1),  # one process with all cores
        ([small], ["finetune.workers.count=1"], False, 4),
        ([small, small], ["finetune.workers.count=1", "finetune.workers.cpus=2"], False, 4),
        ([small], ["finetune.workers.count=2"], False, 2),
        ([gpus, gpus], [], True, 8),
        ([gpus, small], ["finetune.workers.count=2"], True, 2),
        ([small], ["tune.concurrent=7"], False, 7),
        ([small, small], ["tune.objectives=[{a_nearer: 1}]"], False, 8),
        ([{**small, "memory": 7e9}], ["tune.objectives=[{a_nearer: 1}]"], False, 2),  # of 3 GB each
    ):
        (tmp_path / "tune.yaml").write_text(
            yaml.safe_dump(
                {
                    "run_dir": "run",
                    "data": {"source": "faces"},
                    "evaluate": {"extractor": str(tmp_path / "network.pt")},
                    "tune": {"space": SPACE},
                }
            )
        )
        search = replace(plan_search(str(tmp_path / "tune.yaml"), overrides), one_gpu=one_gpu)
        monkeypatch.setattr(tune, "node_resources", lambda nodes=nodes: nodes)
        real = SimpleNamespace(train=SimpleNamespace(nbytes=3e9 - tune.PROCESS_BYTES - tune.KEPT_BYTES))
        assert tune._at_once(search, real) == count, (nodes, overrides)


def test_a_measure_without_a_value_is_no_failure(monkeypatch):
    """The other measures are kept, and a later evaluation may have it."""
    measures = {"frechet": 3.0, "attribute_gap": None}
    evaluations = iter([(10, measures, False), (30, {**measures, "attribute_gap": 0.1}, True)])
    monkeypatch.setattr(_trial, "_evaluations", lambda *_: evaluations)
    asked = SimpleNamespace(objectives=[{"frechet": 1.0, "attribute_gap": 10.0}])
    shared = SimpleNamespace(search=SimpleNamespace(config=SimpleNamespace(tune=asked)), board=None)
    work = _trial.Work(shared, {}, 1)
    first, last = work.step(), work.step()
    assert (first["measures"], first["failed"], first["over"], first["value"]) == (measures, "", False, float("inf"))
    assert (last["failed"], last["over"], last["value"]) == ("", True, 4.0)


@pytest.mark.usefixtures("ray_local")
def test_two_objectives_by_tpe(search, copied, capsys):
    asked = {
        "space": {"score.sigma.scale": [0.2, 0.5], "select.top_fraction": {"low": 0.05, "high": 0.9}},
        "objectives": [{"a_nearer": 1}, {"a_likelihood": 1}],
        "trials": 5,
    }
    assert main(["tune", str(search(asked))]) == 0
    assert "the front: trials" in capsys.readouterr().out
    trials = read_trials(Location.of(copied["run_dir"]))
    assert [t.state for t in trials] == ["finished"] * 5
    assert len({t.key for t in trials}) == 5
    assert all(t.measures.keys() >= {"a_nearer", "a_likelihood", "kept"} for t in trials)
    page = (Path(copied["run_dir"]) / "search/index.html").read_text()
    assert "No other trial beats" in page


@pytest.mark.usefixtures("finished")
def test_scores_are_read_alike_from_memory_and_from_files(copied, monkeypatch):
    """And parents that are planned again are those that were scored."""
    config, run = Config.model_validate(copied), RunDir(Location.of(copied["run_dir"]))
    kept = _trial.Tables()
    first, again = (pa.concat_tables(kept.of(run)) for _ in range(2))
    assert kept.of(run) is kept.of(run)
    monkeypatch.setattr(_trial, "KEPT_BYTES", 100)
    few = _trial.Tables()
    assert few.of(run) is not few.of(run)
    assert pa.concat_tables(few.of(run)).equals(first)
    assert again.equals(first)

    monkeypatch.setattr(_trial, "PLANNED", 7)
    scores = pq.read_table(Path(copied["run_dir"]) / "scores").take(pa.array([0, 6, 7, 500, 4499])).to_pydict()
    keys = sorted(
        pq.read_table(Path(copied["run_dir"]) / "latents", filters=[("split", "=", "train")])["key"].to_pylist()
    )
    planned = _trial._planned(np.array(scores["candidate"]), len(keys), config)
    assert [keys[i] for i in planned.i] == scores["parent_i"]
    assert [keys[j] for j in planned.j] == scores["parent_j"]
    assert planned.alpha.tolist() == scores["alpha"]
