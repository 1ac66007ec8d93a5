"""A real MLflow server that goes away and comes back: what it missed is sent, and nothing twice."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from stages_helpers import merge

from ldsaug_ray.cli import main
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.models import build_vae, decode_images, save_vae
from ldsaug_ray.run.directory import Counts, RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.run.tracking import Tracker
from ldsaug_ray.search import log as search_log
from ldsaug_ray.search.log import SearchLog
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.trials import Trial, read_trials
from ldsaug_ray.stages.shared.job import Job

pytestmark = pytest.mark.cluster


def runs(uri: str) -> dict[str, list[Run]]:
    """Runs by name."""
    client = MlflowClient(uri)
    found: dict[str, list[Run]] = {}
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        found.setdefault(run.info.run_name, []).append(run)
    return found


def complete(run: RunDir, config: Config, stage: str) -> None:
    root = run.folder(stage)
    if stage == "train":
        save_vae(root / "vae.safetensors", build_vae(config.vae, config.data.resolution, seed=0))
        (root / "curve.json").write_json([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    run.finish(stage, "f", Counts(3, 3), "d" * 64, 1.0, 3, train_images=2, test_images=1)


def test_what_a_server_missed_is_sent_when_it_is_back_and_nothing_twice(server, tmp_path):
    config = Config.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "data": {"source": "sklearn:digits", "resolution": 16},
            "vae": {"latent_dim": 4, "channel_base": 128, "channel_max": 8, "mapping_layers": 0},
        }
    )
    run = open_run_dir(config)
    tracker = Tracker.start(config, run)
    stages = ["prepare", "train"]
    complete(run, config, "prepare")
    tracker.send(config, run, stages)
    server.stop()
    complete(run, config, "train")
    with pytest.raises(MlflowException):
        tracker.send(config, run, stages)
    server.start()
    tracker.send(config, run, stages)
    tracker.send(config, run, stages)
    tracker.end("FINISHED")

    client = MlflowClient(tracking_uri=server.uri)
    found = client.get_run(tracker.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["prepare/rows_in"] == 3
    curve = client.get_metric_history(tracker.run_id, "train/loss")
    assert [(m.step, m.value) for m in curve] == [(1, 2.0), (2, 1.0)]
    assert len(client.get_metric_history(tracker.run_id, "prepare/rows_in")) == 1
    (output,) = found.outputs.model_outputs

    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    z = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected = decode_images(build_vae(config.vae, 16, seed=0), z, 64)
    np.testing.assert_array_equal(model.predict(z), expected)
    assert json.loads(model.metadata.signature.to_dict()["inputs"])[0]["tensor-spec"] == {
        "dtype": "float32",
        "shape": [-1, 4],
    }
    names = {p.name for p in (tmp_path / "artifacts").rglob("*") if p.is_file()}
    assert "vae.safetensors" in names
    assert not {n for n in names if n.endswith((".pkl", ".pickle"))}


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """A search of which nothing is done."""
    tree = {
        "run_dir": str(tmp_path / "run"),
        "engine": "inline",
        "data": {"source": "sklearn:digits"},
        "tune": {"space": {"select.tau": [0.3, 0.6, 0.9]}, "objectives": [{"a_nearer": 1.0}]},
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(tree))
    return plan_search(str(tmp_path / "tune.yaml"))


def log(search: Search) -> SearchLog:
    run = open_run_dir(search.config)
    return SearchLog(Job(search.config, run, make_console(), engine_of(search.config)), search)


def trial(number: int, state: str = "finished") -> Trial:
    point = {"select.tau": [0.3, 0.6, 0.9][number - 1]}
    if state == "running":
        return Trial(point, number, "same", state)
    return Trial(point, number, "same", state, {"a_nearer": 0.5}, ((0, {"a_nearer": 0.5}),))


def test_a_server_that_goes_away_loses_nothing(search, server, capsys, monkeypatch):
    monkeypatch.setattr(search_log, "AGAIN_SECONDS", 0.0)
    with log(search) as tracked:
        tracked.send(trial(1, "running"))
        tracked.flush()
        server.stop()
        tracked.send(trial(1))
        tracked.send(trial(2, "running"))
        tracked.flush()
        server.start()
        tracked.send(trial(2))  # with it goes what the server missed
        tracked.flush()
        server.stop()
        tracked.send(trial(3, "running"))
        tracked.send(trial(3))
        tracked.finish([trial(1), trial(2), trial(3)])
    told = capsys.readouterr().err
    assert "MLflow does not take all" in told
    assert "1 trials could not be sent to MLflow; the same command again tries it" in told
    server.start()
    found = {name: [r.info.status for r in some] for name, some in runs(server.uri).items()}
    assert found == {"run": ["RUNNING"], "trial 1": ["FINISHED"], "trial 2": ["FINISHED"]}
    with log(search) as later:  # the same command again
        later.catch_up([trial(1), trial(2), trial(3)])
        later.finish([trial(1), trial(2), trial(3)])
    found = {name: [r.info.status for r in some] for name, some in runs(server.uri).items()}
    assert found == {name: ["FINISHED"] for name in ("run", "trial 1", "trial 2", "trial 3")}


def test_a_search_goes_on_without_its_mlflow_server(copied, server, save, tmp_path, capsys):
    values = {"low": 0.1, "high": 0.9, "values": 20}
    asked = {"space": {"select.top_fraction": values}, "objectives": [{"a_nearer": 1}], "search": "grid"}
    changes = {"engine": "inline", "score": {"n_candidates": 450, "sigma": {}}, "tracking": {"enabled": True}}
    file = save({**merge(copied, changes), "tune": asked})
    server.stop()
    assert main(["tune", str(file)]) == 1
    assert f"MLflow at {server.uri} cannot be used" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("search/trials/*"))  # nothing was begun
    server.start()
    over = threading.Event()

    def stop_it() -> None:
        while not over.wait(0.02):
            if sum('"finished"' in p.read_text() for p in (tmp_path / "run/search/trials").glob("*.json")) >= 3:
                server.stop()
                break

    thread = threading.Thread(target=stop_it)
    thread.start()
    try:
        assert main(["tune", str(file)]) == 0
    finally:
        over.set()
        thread.join()
    assert server.process is None  # it went away while trials ran
    assert [t.state for t in read_trials(Location.of(tmp_path / "run"))] == ["finished"] * 20
    assert "trials could not be sent to MLflow; the same command again tries it" in capsys.readouterr().err
    server.start()
    assert main(["tune", str(file)]) == 0
    assert sorted(runs(server.uri)) == sorted(["run", *(f"trial {n}" for n in range(1, 21))])
    assert all([run.info.status for run in found] == ["FINISHED"] for found in runs(server.uri).values())
