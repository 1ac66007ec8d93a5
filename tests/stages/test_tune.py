"""Whole searches on the tiny run: without training over sigma and tau, and with it."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
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
from scipy.spatial.distance import cdist
from stages_helpers import Tree, digests, merge, script

from ldsaug_ray.cli import main
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, Tune, load_config
from ldsaug_ray.domains.images.stored import images_of
from ldsaug_ray.engines import engine_of
from ldsaug_ray.engines.base import Trials
from ldsaug_ray.engines.ray.trials import _GoesOn, _Next
from ldsaug_ray.metrics import frechet_distance
from ldsaug_ray.models import decode_images, load_vae
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.tracking import tracking_uri
from ldsaug_ray.search import trial as search_trial
from ldsaug_ray.search.plan import plan_search
from ldsaug_ray.search.points import SearchPoints
from ldsaug_ray.search.run import PROCESS_BYTES, _at_once
from ldsaug_ray.search.sampler import open_sampler
from ldsaug_ray.search.space import Dimension, Point, Space
from ldsaug_ray.search.trial import KEPT_BYTES
from ldsaug_ray.search.trials import Trial, front, key_of, read_trials

SPACE = {"score.sigma.scale": [0.2, 0.5], "select.top_fraction": [0.1, 0.5]}
OF_TRIAL = ("score", "select", "decode", "finetune")


@pytest.fixture
def search(copied: Tree, tmp_path: Path, mlflow_there: None) -> Callable[..., Path]:
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


def test_a_search_for_the_front_decodes_each_candidate_once(search, tmp_path):
    """Fréchet distance against AuthPct of A: of each trial as NumPy has them of what an ordinary run selects."""
    space = {"score.sigma.scale": [0.2, 0.5], "select.top_fraction": [0.1, 0.3]}
    asked = {"space": space, "search": "grid", "objectives": [{"a_frechet": 1.0}, {"a_authpct": 1.0}]}
    changes = {"evaluate": {"extractor": script(tmp_path / "colours.pt"), "k": 3}, "tracking": {"enabled": False}}
    assert main(["tune", str(search(asked, **changes))]) == 0
    run = RunDir(Location.of(tmp_path / "run"))
    trials = read_trials(run.root)
    latents, vae = read_latents(run, "train"), load_vae(run.folder("train/vae.safetensors"))
    _, test = real_images_of(run, "test")
    real, blurred = colours(test), colours(decode_images(vae, latents.z, 16))
    own = np.sort(cdist(blurred, blurred), axis=1)[:, 1]
    best = front(trials, asked["objectives"])
    assert best
    for trial in best:
        selected = RunDir(Location.of(tmp_path / f"run/trials/{trial.key}")).folder("selected")
        kept = pa.concat_tables(file.read_table() for file in selected.files(".parquet"))
        made = colours(decode_images(vae, latents.between(kept, "linear", None), 16))
        assert trial.measures["a_frechet"] == pytest.approx(frechet_distance(made, real), rel=1e-3)
        distances = cdist(made, blurred)
        authentic = distances.min(1) > own[distances.argmin(1)]
        assert trial.measures["a_authpct"] == pytest.approx(100 * authentic.mean(), abs=100.1 / len(made))
    decoded = [pq.read_table(file) for file in (tmp_path / "run/search/features").rglob("*.parquet")]
    ids = np.concatenate([table["candidate"].to_numpy() for table in decoded])
    assert len(set(ids.tolist())) == len(ids) < sum(trial.measures["kept"] for trial in trials)


def real_images_of(run: RunDir, split: str) -> tuple[list[str], np.ndarray]:
    """Keys and images of a split."""
    tables = [file.read_table() for file in run.folder("images").files(".parquet")]
    rows = pa.concat_tables(table.filter(pa.compute.equal(table["split"], split)) for table in tables)
    return rows["key"].to_pylist(), images_of(rows)


def colours(images: np.ndarray) -> np.ndarray:
    """Mean colours of the four quarters, in the order of the extractor's."""
    n, side = len(images), images.shape[1]
    quarters = images.reshape(n, 2, side // 2, 2, side // 2, 3).mean(axis=(2, 4))
    return quarters.transpose(0, 3, 1, 2).reshape(n, 12).astype(np.float32)


def _scale(manifest: Path) -> float:
    return json.loads(manifest.read_text())["stages"]["score"]["sigma_numbers"]["scale"]


class _Told:
    """Trials as they were told of."""

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}
        self.stopped: dict[str, bool] = {}

    def begin(self, point: Point) -> Trial:
        trial = self.trials.setdefault(key_of(point), Trial(point, len(self.trials) + 1, ""))
        self.trials[trial.key] = replace(trial, state="running")
        return self.trials[trial.key]

    def evaluated(self, key: str, found: Any) -> None:
        pass

    def end(self, key: str, *, stopped: bool = False, crashed: str = "") -> Trial:
        self.stopped[key] = stopped
        self.trials[key] = replace(self.trials[key], state="crashed" if crashed else "finished")
        return self.trials[key]


@pytest.fixture
def grid() -> Callable[..., tuple[SearchPoints, _Told]]:
    """grid(**how) -> points of a search over two values, and who is told of its trials."""

    def make(deadline: float | None = None, **asked: Any) -> tuple[SearchPoints, _Told]:
        kept, tune = _Told(), Tune(search="grid", **asked)
        sampler = open_sampler(tune, Space((Dimension("select.top_fraction", (0.1, 0.5)),)), [])
        return SearchPoints(sampler, kept, [], tune, deadline), kept

    return make


def test_a_crashed_trial_is_given_again_however_often_tune_says_so(grid):
    """Tune says twice that an actor died where it died between two trials."""
    points, kept = grid(max_failures=1)
    tune = _Next(points)
    first = tune.suggest("a")
    points.end("a", crashed="died")
    points.end("a", crashed="died")
    assert tune.suggest("b") == first
    points.end("b", crashed="died")
    assert kept.trials[key_of(first["point"])].state == "crashed"
    second = tune.suggest("c")
    assert second["point"] != first["point"]
    assert tune.suggest("d") is None  # the one that runs may crash
    points.end("c")
    assert tune.suggest("e") == Searcher.FINISHED


def test_no_trial_starts_when_time_is_over(grid):
    points, kept = grid(deadline=time.monotonic())
    assert _Next(points).suggest("a") == Searcher.FINISHED
    assert points.next("a") is None
    assert not kept.trials


class _Crashing:
    """Trials by how often they crash; the others are over at once."""

    def __init__(self, crashes: dict[float, int]):
        self.crashes = crashes

    def __call__(self, asked: Any) -> SimpleNamespace:
        value = asked["point"]["select.top_fraction"]

        def step() -> dict[str, Any]:
            self.crashes[value] = self.crashes.get(value, 0) - 1
            if self.crashes[value] >= 0:
                raise ZeroDivisionError("within")
            return {"step": 1, "measures": {}, "value": 0.0, "over": True}

        return SimpleNamespace(step=step, close=lambda: None)


@pytest.mark.parametrize(("crashes", "state"), [(1, "finished"), (2, "crashed")])
def test_without_ray_a_trial_that_crashes_is_tried_again_then_marked(grid, crashes, state):
    points, kept = grid(max_failures=1)
    config = Config.model_validate({"run_dir": "r", "data": {"source": "s"}, "engine": "inline"})
    engine_of(config).trials(Trials(points, _Crashing, ({0.1: crashes},), 1, stages=False))
    assert {t.point["select.top_fraction"]: t.state for t in kept.trials.values()} == {0.1: state, 0.5: "finished"}


def test_a_trial_that_goes_on_is_judged_once_at_a_rung():
    """By itself, with what it came to there before, it would be stopped."""
    asked = Tune(objectives=[{"frechet": 1}], search="grid", asha={"grace_steps": 10, "reduction_factor": 3})
    known = [
        Trial({"select.tau": tau}, 1, "", state, curve=((10, {"frechet": value}),))
        for tau, value, state in ((0.1, 10.0, "finished"), (0.2, 4.0, "finished"), (0.3, 5.0, "running"))
    ]
    kept = _Told()
    taus = [0.3, 0.6, 0.4, 0.5]
    points = SearchPoints(_Given(taus), kept, known, asked, None)
    scheduler = _GoesOn(points)
    without = float("inf")  # a measure has no value yet
    judged = (0.3, 5.0, "CONTINUE"), (0.6, without, "CONTINUE"), (0.4, 5.5, "STOP"), (0.5, 3.0, "CONTINUE")
    for tau, value, action in judged:
        name = f"trial of {tau}"
        assert points.next(name)["point"] == {"select.tau": tau}
        found = {"step": 10, "value": value, "measures": {}, "over": False}
        trial = SimpleNamespace(trial_id=name)
        assert scheduler.on_trial_result(None, trial, {"found": json.dumps(found)}) == action
        points.end(name)
        assert kept.stopped[key_of({"select.tau": tau})] == (action == "STOP")


class _Given:
    """A sampler that has these values."""

    def __init__(self, taus: list[float]):
        self._left = taus[::-1]

    def ask(self) -> Point | None:
        return {"select.tau": self._left.pop()} if self._left else None

    def tell(self, trial: Trial) -> None:
        pass


def test_how_many_trials_run_at_once(tmp_path):
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
        job = SimpleNamespace(engine=SimpleNamespace(nodes=lambda nodes=nodes: nodes))
        real = SimpleNamespace(train=SimpleNamespace(nbytes=3e9 - PROCESS_BYTES - KEPT_BYTES))
        assert _at_once(job, search, real) == count, (nodes, overrides)


def test_the_command_of_the_best_repeats_it(search, finished, tmp_path, capsys):
    file = search(
        {"space": {"select.top_fraction": [0.1, 0.6]}, "search": "grid", "register_as": "faces"},
        finetune={"steps": 6},
        evaluate={"extractor": script(tmp_path / "colours.pt"), "n": 20, "k": 3},
    )
    assert main(["tune", str(file)]) == 0
    output = capsys.readouterr()
    (version,) = MlflowClient(tracking_uri()).search_model_versions("name = 'faces'")
    assert version.status == "READY"

    (line,) = [line for line in output.out.splitlines() if "its run again" in line]
    _, *words = shlex.split(line.partition("page of its own: ")[2])
    place = words[-1].removeprefix("run_dir=")
    shutil.copytree(finished.settings["run_dir"], place)  # images, model and latents are those of the search
    assert main(words) == 0
    best = min(read_trials(Location.of(tmp_path / "run")), key=lambda t: t.measures["frechet"])
    assert line.startswith(f"trial {best.number}, ")
    again, first = (digests({"run_dir": folder}) for folder in (place, str(tmp_path / f"run/trials/{best.key}")))
    assert {s: again[s] for s in OF_TRIAL} == {s: first[s] for s in OF_TRIAL}
    told = json.loads((Path(place) / "evaluate/metrics.json").read_text())
    assert told["sets"]["finetuned"]["frechet"]["value"] == pytest.approx(best.measures["frechet"], rel=1e-6)


def test_a_trial_that_pauses_at_a_rung_ends_as_an_ordinary_run(search, finished, tmp_path):
    asked = {
        "space": {"select.top_fraction": [0.6, 0.1]},
        "search": "grid",
        "asha": {"grace_steps": 3, "reduction_factor": 4},
    }
    changes = {"evaluate": {"extractor": script(tmp_path / "colours.pt"), "n": 20, "k": 3}, "finetune": {"steps": 7}}
    assert main(["tune", str(search(asked, **changes))]) == 0
    root = tmp_path / "run"
    trials = read_trials(Location.of(root))
    assert [(t.number, t.state) for t in trials] == [(1, "finished"), (2, "stopped")]  # one of four goes on
    assert [[step for step, _ in t.curve] for t in trials] == [[3, 7], [3]]
    rung = json.loads((root / f"trials/{trials[1].key}/rungs/000003/manifest.json").read_text())["stages"]
    assert rung["finetune"]["steps"] == 3
    assert [(name, status) for name, status, _ in children()] == [("trial 1", "FINISHED"), ("trial 2", "FINISHED")]

    alone = merge(
        load_config(str(root / f"trials/{trials[0].key}/config.yaml")).dump(),
        {"run_dir": str(tmp_path / "alone"), "tracking": {"enabled": False}, "evaluate": {"extractor": None}},
    )
    shutil.copytree(finished.settings["run_dir"], tmp_path / "alone")
    assert run_command(Config.model_validate(alone), "run") == 0
    one, other = digests(alone), digests({"run_dir": str(root / f"trials/{trials[0].key}")})
    assert {s: one[s] for s in OF_TRIAL} == {s: other[s] for s in OF_TRIAL}

    client = MlflowClient(tracking_uri())
    (best,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`ldsaug.best` = 'true'")
    assert [m.step for m in client.get_metric_history(best.info.run_id, "frechet")] == [3, 7]
    assert {"selected.csv", "samples.png"} <= {a.path for a in client.list_artifacts(best.info.run_id)}
    assert best.outputs.model_outputs


def test_a_measure_without_a_value_is_no_failure(monkeypatch):
    """The other measures are kept, and a later evaluation may have it."""
    measures = {"frechet": 3.0, "attribute_gap": None}
    evaluations = iter([(10, measures, False), (30, {**measures, "attribute_gap": 0.1}, True)])
    monkeypatch.setattr(search_trial, "_evaluations", lambda *_: evaluations)
    asked = SimpleNamespace(objectives=[{"frechet": 1.0, "attribute_gap": 10.0}])
    shared = SimpleNamespace(search=SimpleNamespace(config=SimpleNamespace(tune=asked)), say=print)
    work = search_trial.Evaluations(shared, {}, 1)
    first, last = work.step(), work.step()
    assert (first["measures"], first["failed"], first["over"], first["value"]) == (measures, "", False, float("inf"))
    assert (last["failed"], last["over"], last["value"]) == ("", True, 4.0)


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
    kept = search_trial.Tables()
    first, again = (pa.concat_tables(kept.of(run)) for _ in range(2))
    assert kept.of(run) is kept.of(run)
    monkeypatch.setattr(search_trial, "KEPT_BYTES", 100)
    few = search_trial.Tables()
    assert few.of(run) is not few.of(run)
    assert pa.concat_tables(few.of(run)).equals(first)
    assert again.equals(first)

    scores = pq.read_table(Path(copied["run_dir"]) / "scores").take(pa.array([0, 6, 7, 500, 4499])).to_pydict()
    keys = sorted(
        pq.read_table(Path(copied["run_dir"]) / "latents", filters=[("split", "=", "train")])["key"].to_pylist()
    )
    train = read_latents(run, "train").z
    for pieces in (search_trial.PLANNED, 7):  # all are kept, or planned again
        monkeypatch.setattr(search_trial, "PLANNED", pieces)
        tables = search_trial.Tables()
        for _ in range(2):
            _, planned = tables.chosen(np.array(scores["candidate"]), train, config)
            assert planned.id.tolist() == scores["candidate"]
            assert [keys[i] for i in planned.i] == scores["parent_i"]
            assert [keys[j] for j in planned.j] == scores["parent_j"]
            assert planned.alpha.tolist() == scores["alpha"]
