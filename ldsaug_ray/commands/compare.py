"""`ldsaug compare`: settings that differ between runs, and their metrics with differences, from MLflow."""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError, LdsaugError, StorageError, UsageError
from ldsaug_ray.run.mlflow_place import client_at, quieten, tracking_uri, unusable
from ldsaug_ray.run.progress import print_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_NOT_SETTINGS = ("run_dir", "tracking.", "ray.", "experiment.")
_OF_A_SEARCH = "tune."  # settings that count where whole searches are compared
_SOUGHT = ("objective", "second objective", "best objective")  # numbers of one search alone
_EVERY_RUN = 50_000


@dataclass(frozen=True)
class Compared:
    """A run as MLflow has it: its name, settings, and last value of each metric."""

    run_id: str
    name: str
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    sought: str | None = None  # what a search made small, of it or one of its trials
    is_search: bool = False


def compare_command(names: Sequence[str], *, as_csv: bool = False) -> int:
    """Print two tables: settings that differ, metrics with their differences to the first run.

    Raises:
        UsageError: fewer than two runs.
        InputError: a run is unknown, or its name is that of several.
        StorageError: MLflow does not answer.
    """
    if len(names) < 2:
        raise UsageError("compare: name at least two runs (MLflow run id, run name, or run directory)")
    runs = find_runs(names)
    if len({run.run_id for run in runs}) < len(runs):
        raise InputError("compare: the same run is named twice")
    settings, metrics = differing_settings(runs), metric_rows(runs)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["", *(run.name for run in runs)])
        writer.writerows([name, *(run.settings.get(name, "") for run in runs)] for name in settings)
        writer.writerows([name, *(run.metrics.get(name, "") for run in runs)] for name in metrics)
        return 0
    heads = [f"{run.name}\n{run.run_id[:8]}" for run in runs]
    rows = [[name, *(run.settings.get(name, "—") for run in runs)] for name in settings]
    if rows:
        print_table("settings that differ", ["setting", *heads], rows, 160, "lf")
    else:
        print("no setting differs")
    rows = [[name, *(_number(run, name, runs[0]) for run in runs)] for name in metrics]
    print_table(f"metrics; in brackets: minus {runs[0].name}", ["metric", *heads], rows, 160)
    return 0


def find_runs(names: Sequence[str]) -> list[Compared]:
    """The runs of these ids, names or run directories, in this order.

    Raises:
        InputError, StorageError: as `compare_command`.
    """
    quieten()
    uri = tracking_uri()
    try:
        client = client_at(uri)
        experiments = [e.experiment_id for e in client.search_experiments()]
        return [_as_compared(_find(client, experiments, name)) for name in names]
    except LdsaugError:  # says what it is about
        raise
    except Exception as e:  # of MLflow, SQLAlchemy, or a database's driver
        raise unusable(uri, e) from e


def differing_settings(runs: Sequence[Compared]) -> list[str]:
    """Names of the settings that are not the same in all, but for where and how a run is written."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    left_out = _NOT_SETTINGS if all(run.is_search for run in runs) else (*_NOT_SETTINGS, _OF_A_SEARCH)
    return [
        name for name in names if not name.startswith(left_out) and len({run.settings.get(name) for run in runs}) > 1
    ]


def metric_rows(runs: Sequence[Compared]) -> list[str]:
    """Names of the metrics that at least two runs have with different values: first what a search goes by, then those
    of the evaluation. What was made small is left out where that is not the same."""
    names = sorted({name for run in runs for name in run.metrics}, key=_rank)
    found = []
    for name in names:
        if name in _SOUGHT and len({run.sought for run in runs}) > 1:
            continue
        values = [run.metrics[name] for run in runs if name in run.metrics]
        if len(values) > 1 and len(set(values)) > 1:
            found.append(name)
    return found


def _rank(name: str) -> tuple[bool, bool, str]:
    return "/" in name, not name.startswith("evaluate/"), name


def _find(client: MlflowClient, experiments: list[str], name: str) -> Run:
    from mlflow.exceptions import MlflowException

    if re.fullmatch(r"[0-9a-f]{32}", name):
        try:
            return client.get_run(name)
        except MlflowException:
            raise InputError(f"compare: MLflow at {without_password(tracking_uri())} has no run {name}") from None
    if key := re.search(r"(?:^|/)([0-9a-f]{12})/?$", name):  # a search's trial, or its folder
        of_trial = list(client.search_runs(experiments, f"tags.`ldsaug.trial` = '{key[1]}'"))
        if "/" in name and len(of_trial) > 1:  # searches in other run directories had the same point
            here = [run for run in of_trial if _same_place(run.data.tags.get("ldsaug.run_dir", ""), name)]
            of_trial = here or of_trial
        if of_trial:
            return _sole(of_trial, name)
    manifest = Location.of(name) / "manifest.json"
    if manifest.exists():
        tree = manifest.read_json()
        noted = tree.get("mlflow") or tree.get("mlflow_search")
        if noted is None:
            raise InputError(f"compare: {name} was never sent to MLflow (`ldsaug run`, `experiment` and `tune` are)")
        if noted["tracking_uri"] != without_password(tracking_uri()):
            raise InputError(
                f"compare: {name} was sent to {noted['tracking_uri']}, not to {without_password(tracking_uri())}; set "
                "MLFLOW_TRACKING_URI"
            )
        return _find(client, experiments, noted["run_id"])
    quoted = name.replace("'", "\\'")
    found = list(client.search_runs(experiments, f"attributes.run_name = '{quoted}'", max_results=10))
    if not found and re.fullmatch(r"[0-9a-f]{6,31}", name):
        every = client.search_runs(experiments, max_results=_EVERY_RUN)
        found = [run for run in every if run.info.run_id.startswith(name)]
    if not found:
        raise InputError(
            f"compare: {name} is no run id, run name or run directory that MLflow at "
            f"{without_password(tracking_uri())} knows"
        )
    return _sole(found, name)


def _sole(found: Sequence[Run], name: str) -> Run:
    """The one run that was found; raises InputError where there are several."""
    if len(found) > 1:
        ids = ", ".join(f"{run.info.run_id} ({run.data.tags.get('ldsaug.run_dir', 'elsewhere')})" for run in found[:5])
        raise InputError(f"compare: {len(found)} runs are named {name}; give the id: {ids}{', …' * (len(found) > 5)}")
    return found[0]


def _same_place(one: str, other: str) -> bool:
    """Whether two run directories are one; not where no installed library opens one of them."""
    try:
        return Location.of(one).path.rstrip("/") == Location.of(other).path.rstrip("/")
    except StorageError:
        return False


def _as_compared(run: Run) -> Compared:
    tags = run.data.tags
    return Compared(
        run.info.run_id,
        str(run.info.run_name),
        dict(run.data.params),
        dict(run.data.metrics),
        tags.get("ldsaug.sought"),
        "ldsaug.search" in tags,
    )


def _number(run: Compared, name: str, first: Compared) -> str:
    value = run.metrics.get(name)
    if value is None:
        return ""
    text = f"{value:.5g}"
    base = first.metrics.get(name)
    if run is first or base is None or not (math.isfinite(value) and math.isfinite(base)):
        return text
    return f"{text} ({value - base:+.3g})"
