"""Where MLflow is: its address, client, experiment, commands for a shell, and why it cannot be used."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldsaug_ray.common.secrets import first_line, without_password
from ldsaug_ray.errors import StorageError
from ldsaug_ray.run.progress import make_console

if TYPE_CHECKING:
    from mlflow import MlflowClient


def folder_is_temporary() -> bool:
    """Whether the working folder is a Ray job's copy of what was submitted, which goes with the job."""
    try:
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    except json.JSONDecodeError:
        return False
    return bool((job.get("runtime_env") or {}).get("working_dir"))


def tracking_uri() -> str:
    """Where runs are kept: MLFLOW_TRACKING_URI, or a SQLite file in the working folder.

    Raises:
        StorageError: that folder will not be kept.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri and folder_is_temporary():
        raise StorageError(
            "MLFLOW_TRACKING_URI is not set, and a file in a job's working folder goes with the job; set it on the "
            "head or for the job (ray job submit --runtime-env-json), or give tracking.enabled=false"
        )
    # what SQLAlchemy would take for a code or for the end of the path; anything else it takes as it is
    return uri or f"sqlite:///{Path.cwd() / 'mlflow.db'}".replace("%", "%25").replace("?", "%3F")


def view_command() -> str:
    """The command that shows the runs, for a shell."""
    uri = without_password(tracking_uri())
    if uri.startswith("http"):
        return shlex.join(["open", uri])
    return mlflow_command("ui", "--host", "127.0.0.1", "--backend-store-uri", uri)


def client_at(uri: str) -> MlflowClient:
    """MLflow's client; raises whatever it raises."""
    from mlflow import MlflowClient

    path = Path(uri.partition("///")[2])
    absent = [p for p in path.parents if not p.exists()]  # MLflow makes them, by the path as it stands in the URI
    with _one_at_a_time(next((p for p in path.parents if p.exists()), None) if uri.startswith("sqlite") else None):
        client = MlflowClient(tracking_uri=uri)
    for folder in absent:
        with suppress(OSError):  # what is used is not empty
            folder.rmdir()
    return client


@contextmanager
def _one_at_a_time(folder: Path | None) -> Iterator[None]:
    """Others that open a database in that folder wait: two that make its tables at once leave none that can be used."""
    handle = None
    with suppress(OSError):  # where folders cannot be locked, all goes on as without
        handle = None if folder is None else os.open(folder, os.O_RDONLY)
    if handle is None:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def unusable(uri: str, error: BaseException, otherwise: str = "") -> StorageError:
    """What MLflow raised, with all that it advises, and what else can be done."""
    reason = first_line(error)
    advice = "where a newer MLflow wrote the database, install that one; " * ("out-of-date database" in reason)
    advice += "it was left half made: delete it, unless it holds runs; " * ("_alembic_tmp_" in reason)
    advice += f"{'start it, or ' * uri.startswith('http')}change MLFLOW_TRACKING_URI{otherwise}"
    return StorageError(f"MLflow at {without_password(uri)} cannot be used ({reason}); {advice}")


def mlflow_command(*words: str) -> str:
    """A command of MLflow for a shell, by the program beside this Python where there is one."""
    beside = Path(sys.executable).with_name("mlflow")
    return shlex.join([str(beside) if beside.exists() else "mlflow", *words])


def quieten() -> None:
    """MLflow's and its database migrations' remarks off, which would bury the progress lines."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow  # noqa: F401  (it sets its loggers' levels on import)

    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)


def experiment_at(client: MlflowClient, name: str, uri: str) -> str:
    """The id of the experiment of that name, which is made where there is none.

    Raises:
        StorageError: it is deleted, or its artifacts would be lost.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        restore = mlflow_command("experiments", "restore", "--experiment-id", str(found.experiment_id))
        raise StorageError(
            f"MLflow at {without_password(uri)}: its experiment {name} is deleted; restore it by "
            f"{shlex.join(['env', f'MLFLOW_TRACKING_URI={without_password(uri)}'])} {restore}, or give another "
            "tracking.experiment"
        )
    if found is not None:
        return str(found.experiment_id)
    if folder_is_temporary() and not uri.startswith("http"):
        raise StorageError(
            f"MLFLOW_TRACKING_URI={without_password(uri)}: artifacts would be lost with the job's working folder; give "
            f"a server (http://...), or make its experiment {name} first, with an artifact location"
        )
    artifacts = None if uri.startswith("http") else (Path.cwd() / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=artifacts))


def known_run(client: MlflowClient, noted: Any, uri: str, settings: str) -> str | None:
    """The id of the run that is noted, where it is that of this place and these settings, and not deleted."""
    from mlflow.exceptions import MlflowException

    if not isinstance(noted, dict) or noted.get("tracking_uri") != without_password(uri):
        return None
    if noted.get("settings") != settings:
        return None
    with suppress(MlflowException):  # the database may have been deleted since
        info = client.get_run(noted["run_id"]).info
        if info.lifecycle_stage != "deleted":
            return str(info.run_id)
        make_console().print(
            f"MLflow    run {info.run_name} ({info.run_id}) is deleted there; a new one takes its place",
            highlight=False,
            markup=False,
        )
    return None
