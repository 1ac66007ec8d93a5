"""MLflow: one run per pipeline run, owned by the driver, in an honest state whatever happens.

The run's id is kept in the manifest: a command that goes on with a run goes on in its MLflow run; other settings get a
new one. A tag per stage says what has been sent: what a server missed is sent later, and nothing twice. Without
MLFLOW_TRACKING_URI everything is in `mlflow.db` and `mlartifacts/` of the working folder.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ldsaug_ray import __version__
from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.secrets import without_password, without_passwords
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import StorageError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.mlflow_place import client_at, experiment_at, known_run, quieten, tracking_uri, unusable
from ldsaug_ray.run.pipeline import identity

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
_PARAMETERS_PER_CALL = 100
_METRICS_PER_CALL = 900  # of 1,000 values of all kinds: tags go with the last
_RUNS_PER_CALL = 500


class Tracker:
    """One MLflow run. Create with `start`; always `end` it."""

    def __init__(self, client: MlflowClient, run_id: str):
        self._client, self.run_id = client, run_id

    @cached_property
    def tags(self) -> dict[str, str]:
        """Of the run. They are the driver's, who holds the run directory: asked once."""
        return dict(self._client.get_run(self.run_id).data.tags)

    @cached_property
    def _experiment(self) -> str:
        return str(self._client.get_run(self.run_id).info.experiment_id)

    @classmethod
    def start(
        cls, config: Config, run: RunDir, tags: Mapping[str, str] | None = None, *, noted_as: str = "mlflow"
    ) -> Tracker:
        """Open the run of this run directory, or a new one, and log the settings.

        Args:
            tags: further tags; `child_of` gives those of a child run.
            noted_as: name of the note: what else than a run is kept in the directory has one of its own.

        Raises:
            StorageError: the tracking server or file does not answer, or the experiment is deleted.
        """
        quieten()
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        uri = tracking_uri()
        try:
            client = client_at(uri)
            experiment = experiment_at(client, config.tracking.experiment, uri)
            run_id = known_run(client, run.manifest.get(noted_as), uri, identity(config))
            if run_id is None:
                name = config.tracking.run_name or run.root.name
                own = {"ldsaug.run_dir": without_password(run.root.uri), "ldsaug.version": __version__}
                run_id = client.create_run(experiment, run_name=name, tags={**own, **(tags or {})}).info.run_id
                noted = {"tracking_uri": without_password(uri), "run_id": run_id, "settings": identity(config)}
                run.note(noted_as, noted)
            else:
                client.update_run(run_id, status="RUNNING")
                for key, value in (tags or {}).items():
                    client.set_tag(run_id, key, value)
            tracker = cls(client, run_id)
            tracker._log_parameters(_leaves(without_passwords(config.dump())), client.get_run(run_id).data.params)
        except StorageError:
            raise
        except Exception as e:  # of MLflow, SQLAlchemy, or a database's driver
            raise unusable(uri, e, ", or set tracking.enabled=false") from e
        return tracker

    def child_of(self) -> dict[str, str]:
        """Tags that make another run a child of this one."""
        return {"mlflow.parentRunId": self.run_id}

    def child(self, config: Config, name: str, tag: str, value: str, mine: Config, sought: Collection[str]) -> Tracker:
        """The one child run whose tag has the value, or a new one; raises whatever MLflow's client raises.

        value: letters and digits; mine: this run's settings. The child has those `sought`, and what differs: all would
        take MLflow longer than a trial without training takes.
        """
        own = {**self.child_of(), tag: value}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in own.items())
        found = self._client.search_runs([self._experiment], query, max_results=1)
        if found:
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            tags = {**own, "ldsaug.run_dir": without_password(config.run_dir)}
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        child = Tracker(self._client, str(run.info.run_id))
        child.tags = dict(run.data.tags)
        theirs, ours = (_leaves(without_passwords(c.dump())) for c in (config, mine))
        differ = {k: v for k, v in theirs.items() if k in sought or (k, v) not in ours.items()}
        differ.pop("run_dir", None)  # a tag has it
        child._log_parameters(differ, run.data.params)
        return child

    def children(self, tag: str) -> dict[str, tuple[Tracker, Mapping[str, str]]]:
        """Child runs that have the tag, by its value, with all their tags."""
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        found: dict[str, tuple[Tracker, Mapping[str, str]]] = {}
        page: str | None = None
        while page != "":
            runs = self._client.search_runs([self._experiment], query, max_results=_RUNS_PER_CALL, page_token=page)
            for run in runs:
                if tag in run.data.tags:
                    found[run.data.tags[tag]] = (Tracker(self._client, str(run.info.run_id)), run.data.tags)
            page = runs.token or ""
        return found

    def ping(self) -> None:
        """Raises where the server does not answer."""
        self._client.get_run(self.run_id)

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self.log_metrics([], {name: value})

    def once(self, name: str, identity: str, send: Callable[[], None]) -> None:
        """Send something unless a tag says that this very thing was sent."""
        tag = f"ldsaug.sent.{name}"
        if self.tags.get(tag) != identity:
            send()
            self.tag(tag, identity)

    def send(self, config: Config, run: RunDir, stages: Sequence[str], *, models: bool = True) -> None:
        """Send what MLflow has not got yet of the complete ones of `stages`; raises whatever MLflow's client raises.

        Args:
            models: log the VAEs of `train` and `finetune` as models.
        """
        for stage in stages:
            entry = (RunDir(run.folder(stage)) if stage == "frontier" else run).entry(stage)  # kept in its own folder
            if entry is not None:
                self.once(stage, fingerprint(entry), partial(self._send_stage, config, run, stage, entry, models))

    def _send_stage(self, config: Config, run: RunDir, stage: str, entry: Mapping[str, Any], models: bool) -> None:
        """Numbers of the manifest entry as metrics `stage/name`, and what else the stage has to show."""
        self.log_metrics([(f"{stage}/{k}", v, 0) for k, v in _flatten(entry).items()])
        root = run.folder(stage)
        if stage == "prepare":
            self._log_dataset(config, entry)
        elif stage in ("train", "finetune"):
            self._log_curve(stage, (root / "curve.json").read_json())
            if models:
                self.log_vae(config, root / "vae.safetensors", "baseline" if stage == "train" else "finetuned")
        elif stage == "evaluate":
            self.log_files([root / "metrics.json"], "evaluate")
        elif stage == "frontier":
            self.log_files([root / f"frontier.{kind}" for kind in ("json", "csv", "svg")], "frontier")
        elif stage == "report":
            self.log_files([root / "index.html"], "report")
            self.log_files((root / "figures").files(), "report/figures")
            self.log_files([run.folder("config.yaml"), run.folder("manifest.json")], "")

    def _log_curve(self, stage: str, curve: Sequence[Mapping[str, float]]) -> None:
        """A loss curve, a list of {"step": n, term: value, …}, as metrics by step."""
        points = [
            (f"{stage}/{name}", value, int(point["step"]))
            for point in curve
            for name, value in point.items()
            if name != "step"
        ]
        self.log_metrics(points)

    def _log_dataset(self, config: Config, entry: Mapping[str, Any]) -> None:
        """The prepared data as the run's input, by its fingerprint."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=Location.of(config.data.source).name if config.data.source != "sklearn:digits" else "digits",
            digest=str(entry["digest"])[:32],
            source_type="uri",
            source=json.dumps({"uri": without_password(config.data.source)}),
            profile=json.dumps({"train": entry["train_images"], "test": entry["test_images"]}),
        )
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log_vae(self, config: Config, weights: Location, name: str, register_as: str | None = None) -> None:
        """A VAE as a logged model: latents to images, `mlflow.pyfunc.load_model` opens it.

        Args:
            register_as: of the registered model, of which it becomes a new version.
        """
        import mlflow.pyfunc
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model, ModelSignature
        from mlflow.types.schema import Schema, TensorSpec

        from ldsaug_ray.models import load_vae

        codec = load_vae(weights)
        d, batch = codec.latent_dim, codec.blank(0)
        latents = TensorSpec(np.dtype(np.float32), (-1, d))
        items = TensorSpec(batch.dtype, (-1, *batch.shape[1:]))
        # through the client: the fluent functions would change the process's tracking URI
        model = self._client.create_logged_model(self._experiment, name=name, source_run_id=self.run_id)
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary) / weights.name
            data.write_bytes(weights.read_bytes())
            folder = Path(temporary) / "model"
            mlflow.pyfunc.save_model(
                str(folder),
                loader_module="ldsaug_ray.models.mlflow_model",
                data_path=str(data),
                mlflow_model=Model(run_id=self.run_id, model_id=model.model_id, model_uuid=model.model_id),
                signature=ModelSignature(Schema([latents]), Schema([items])),
                input_example=np.zeros((1, d), np.float32),
                pip_requirements=[f"ldsaug_ray=={__version__}"],
            )
            self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        if register_as is not None:
            with suppress(MlflowException):  # there is one of that name
                self._client.create_registered_model(register_as)
            self._client.create_model_version(
                register_as, f"models:/{model.model_id}", self.run_id, model_id=model.model_id
            )

    def log_files(self, files: Sequence[Location], folder: str) -> None:
        """Files of the run directory as artifacts."""
        with tempfile.TemporaryDirectory() as temporary:
            for file in files:
                path = Path(temporary) / file.name
                path.write_bytes(file.read_bytes())
                self._client.log_artifact(self.run_id, str(path), folder)

    def end(self, status: Status) -> None:
        """Close the run as what it was."""
        self._client.set_terminated(self.run_id, status)

    def _log_parameters(self, parameters: Mapping[str, Any], known: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        values = {allowed_name(k): str(v)[:6000] for k, v in parameters.items()}
        # parameters are immutable in MLflow: a setting that changes no result (workers) is kept as a tag beside it
        for key, value in values.items():
            if key in known and known[key] != value:
                self._client.set_tag(self.run_id, f"changed.{key}", value)
        new = [Param(k, v) for k, v in values.items() if k not in known]
        for k in range(0, len(new), _PARAMETERS_PER_CALL):
            self._client.log_batch(self.run_id, params=new[k : k + _PARAMETERS_PER_CALL])

    def log_metrics(self, points: Sequence[tuple[str, float, int]], tags: Mapping[str, str] | None = None) -> None:
        """Name, value and step of each; and tags, which come last, in as few calls as MLflow allows."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value, step in points]
        parts = [metrics[k : k + _METRICS_PER_CALL] for k in range(0, len(metrics), _METRICS_PER_CALL)] or [[]]
        for part in parts:
            last = [RunTag(k, v) for k, v in (tags or {}).items()] if part is parts[-1] else []
            self._client.log_batch(self.run_id, metrics=part, tags=last)
        self.tags.update(tags or {})


def allowed_name(name: str) -> str:
    """A name that MLflow takes; those of arms and tables are the user's."""
    return re.sub(r"[^\w. :/-]", "_", name)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _flatten(entry: Mapping[str, Any]) -> dict[str, float]:
    leaves = _leaves({k: v for k, v in entry.items() if k != "quarantine_reasons"}).items()
    return {k: v for k, v in leaves if isinstance(v, int | float) and not isinstance(v, bool)}
