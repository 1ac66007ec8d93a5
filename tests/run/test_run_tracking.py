"""MLflow, for real: a server that is started, goes away and comes back, and the logged model."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_server import Server

from ldsaug_ray.config import Config
from ldsaug_ray.errors import StorageError
from ldsaug_ray.models import build_vae, decode_images, save_vae
from ldsaug_ray.run.directory import Counts, RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.tracking import Tracker


def complete(run: RunDir, config: Config, stage: str) -> None:
    root = run.folder(stage)
    if stage == "train":
        save_vae(root / "vae.safetensors", build_vae(config.vae, config.data.resolution, seed=0))
        (root / "curve.json").write_json([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    run.finish(stage, "f", Counts(3, 3), "d" * 64, 1.0, 3, train_images=2, test_images=1)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "data": {"source": "sklearn:digits", "resolution": 16},
            "vae": {"latent_dim": 4, "channel_base": 128, "channel_max": 8, "mapping_layers": 0},
        }
    )


def test_other_settings_are_another_run(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same experiment goes on in its MLflow run; parameters of another are not mixed with its metrics."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    run = open_run_dir(config)
    first = Tracker.start(config, run).run_id
    tree = config.dump()
    more_workers = Config.model_validate(tree | {"score": tree["score"] | {"workers": {"count": 2}}})
    assert Tracker.start(more_workers, run).run_id == first
    wider = Config.model_validate(tree | {"score": tree["score"] | {"sigma": {"scale": 0.4}}})
    second = Tracker.start(wider, run)
    assert second.run_id != first
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    scales = [client.get_run(r).data.params["score.sigma.scale"] for r in (first, second.run_id)]
    assert scales == ["None", "0.4"]


def test_a_broken_database_is_one_message(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.db").write_text("no database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'broken.db'}")
    with pytest.raises(StorageError, match=r"broken\.db cannot be used \(.*not a database"):
        Tracker.start(config, open_run_dir(config))


def test_what_a_server_missed_is_sent_when_it_is_back_and_nothing_twice(
    server: Server, config: Config, tmp_path: Path
) -> None:
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
