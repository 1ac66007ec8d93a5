"""MLflow, for real, and the logged model."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ldsaug_ray.commands.compare import find_runs
from ldsaug_ray.commands.doctor import _mlflow
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import StorageError
from ldsaug_ray.run.mlflow_place import client_at, quieten, tracking_uri, unusable, view_command
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


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as it is made, which takes seconds, in a folder whose name would be another in a URI."""
    folder = tmp_path_factory.mktemp("migrated") / "50%20a?b my #1'"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        quieten()
        client_at(tracking_uri()).search_experiments()
    assert [p.name for p in folder.iterdir()] == ["mlflow.db"]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    return folder / "mlflow.db"


@pytest.fixture(params=["plain", "a?b", "50%20x", "my runs"])
def folder(request: pytest.FixtureRequest, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with MLflow's default database in it."""
    folder = tmp_path / request.param
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def test_a_database_is_opened_by_one_at_a_time(migrated: Path, tmp_path: Path) -> None:
    """Two commands that make its tables at once leave a database that neither can use."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    opened: list[MlflowClient] = []
    thread = threading.Thread(target=lambda: opened.append(client_at(f"sqlite:///{tmp_path}/mlflow.db")))
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread.start()
        thread.join(1)
        assert thread.is_alive()
    finally:
        os.close(held)
    thread.join(60)
    assert len(opened) == 1


def test_of_a_database_that_was_left_half_made_it_is_told() -> None:
    reason = "(sqlite3.OperationalError) table _alembic_tmp_experiments already exists"
    assert "left half made: delete it" in str(unusable("sqlite:////a/mlflow.db", OSError(reason)))
    assert "half made" not in str(unusable("sqlite:////a/mlflow.db", OSError("no such table")))


def runs_in(database: Path) -> list[tuple[str, str]]:
    """Names and states of the runs, read without MLflow."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("select name, lifecycle_stage from runs order by start_time").fetchall()


def test_the_default_database_and_artifacts_are_in_the_working_folder_whatever_its_name(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker.start(config, open_run_dir(config))
    (folder / "numbers.json").write_text("{}")
    tracker.log_files([Location.of(folder / "numbers.json")], "evaluate")
    tracker.end("FINISHED")
    assert runs_in(folder / "mlflow.db") == [("run", "active")]
    (file,) = folder.glob("mlartifacts/*/artifacts/evaluate/*")
    assert file.name == "numbers.json"
    assert {p.name for p in folder.iterdir()} == {"mlflow.db", "mlartifacts", "numbers.json"}
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, "run"}

    # the command, as a shell takes it apart
    words = shlex.split(view_command())
    assert words[1:5] == ["ui", "--host", "127.0.0.1", "--backend-store-uri"]
    (found,) = client_at(words[5]).search_runs(["1"])
    assert found.info.run_id == tracker.run_id
    assert _mlflow().found.endswith("answers, 2 experiments")


@pytest.mark.parametrize("folder", ["plain"], indirect=True)
def test_a_deleted_run_is_replaced_and_a_deleted_experiment_told(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run, client = open_run_dir(config), MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    first = Tracker.start(config, run).run_id
    client.delete_run(first)
    capsys.readouterr()
    second = Tracker.start(config, run)
    assert f"({first}) is deleted there; a new one takes its place" in capsys.readouterr().err
    second.tag("of", "the new one")
    assert Tracker.start(config, run).run_id == second.run_id
    assert capsys.readouterr().err == ""
    assert runs_in(folder / "mlflow.db") == [("run", "deleted"), ("run", "active")]

    experiment = client.get_run(first).info.experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(StorageError, match=f"its experiment {config.tracking.experiment} is deleted; restore it") as e:
        Tracker.start(config, run)
    command = shlex.split(str(e.value).partition("restore it by ")[2].partition(", or give")[0])
    assert command[:2] == ["env", f"MLFLOW_TRACKING_URI={tracking_uri()}"]
    assert command[3:] == ["experiments", "restore", "--experiment-id", experiment]
    client.restore_experiment(experiment)
    assert Tracker.start(config, run).run_id == second.run_id


@pytest.mark.parametrize("folder", ["plain"], indirect=True)
def test_mlflow_is_heard_to_the_end(
    folder: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its advice stands at the end of long messages: the whole of it, in every command."""
    other = tmp_path / "newer.db"
    shutil.copy(folder / "mlflow.db", other)
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
        connection.commit()
    for uri, advice in (
        (
            f"sqlite:///{other}",
            r"found version ffffffffffff.*for more detail\.\); where a newer .* install",
        ),
        (str(tmp_path / "mlruns"), r"maintenance mode.*migrate-filestore.*MLFLOW_ALLOW_FILE_STORE=true.*\); change"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for use in (lambda: Tracker.start(config, open_run_dir(config)), lambda: find_runs(["one", "two"])):
            with pytest.raises(StorageError, match=advice) as e:
                use()
            assert "start it" not in str(e.value)
        found = _mlflow()
        assert re.search(advice, f"{found.found}; {found.advice}")


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
