"""MLflow runs: which one a command goes on in, and a database that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from ldsaug_ray.config import Config
from ldsaug_ray.errors import StorageError
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.tracking import Tracker


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
