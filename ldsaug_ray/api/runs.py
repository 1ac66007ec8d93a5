"""`run` and `load_run`: a whole run from Python, and the tables that any run has left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from os import PathLike
from typing import Any

import pyarrow as pa

from ldsaug_ray.common.storage import Location, Place
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.config.load import build_config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.run.tracked import nothing, tracked_run
from ldsaug_ray.stages.shared.checks import require_faiss, try_networks
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import State, plan_steps, run_stages


class RunTables:
    """What a run directory holds: Arrow tables, read whole when they are first asked for (`.to_pandas()`, `.to_numpy()`
    of a column). A stage that is not complete yet is a MissingStageError.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run

    @property
    def place(self) -> str:
        """Where it lies."""
        return self._run.root.uri

    @property
    def manifest(self) -> dict[str, Any]:
        """manifest.json: of each complete stage counts, seconds, digest and facts."""
        return self._run.manifest

    @cached_property
    def config(self) -> Config:
        """The settings that last wrote here."""
        return build_config(self._run.saved_config() or {}, ())

    @cached_property
    def latents(self) -> pa.Table:
        """key, split, z float32[d], attributes."""
        return self._table("encode", "latents")

    @cached_property
    def scores(self) -> pa.Table:
        """A row for every candidate: candidate, parent_i, parent_j, alpha, log_lds, …"""
        return self._table("score", "scores")

    @cached_property
    def selected(self) -> pa.Table:
        """Rows of `scores` that were kept."""
        return self._table("select", "selected")

    @cached_property
    def augmented(self) -> pa.Table:
        """key, image struct<bytes, path> (PNG), z, candidate, parent_i, parent_j, alpha, log_lds, sharpness."""
        return self._table("decode", "augmented")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json of stage `evaluate`."""
        self._run.require("evaluate")
        return dict(self._run.folder("evaluate/metrics.json").read_json())

    def _table(self, stage: str, folder: str) -> pa.Table:
        self._run.require(stage)
        files = self._run.folder(folder).files(".parquet")
        return pa.concat_tables([file.read_table() for file in files]) if files else pa.table({})

    def __repr__(self) -> str:
        done = ", ".join(self._run.manifest["stages"]) or "no stage"
        return f"RunTables({self.place!r}: {done})"


def load_run(run_dir: Place) -> RunTables:
    """The tables of a run: .latents, .scores, .selected, .augmented, .metrics, .manifest.

    Args:
        run_dir: of the run: a path or URI.

    Raises:
        InputError: no run is there.
        StorageError: it cannot be read.
    """
    root = Location.of(run_dir)
    if not (root / "manifest.json").exists():
        raise InputError(f"run_dir {root.uri}: there is no run (no manifest.json)")
    return RunTables(RunDir(root))


def run(
    config: Config | str | PathLike[str] | Mapping[str, Any], *overrides: str, overwrite: bool = False
) -> RunTables:
    """Run all stages, as `ldsaug run` does; what is complete already is skipped.

    Args:
        config: the settings: a YAML file, a mapping, or a `Config`.
        overrides: such as "score.sigma.scale=0.3"; not with a `Config`.
        overwrite: discard a run on other data that lies in the run directory.

    Raises:
        LdsaugError: the message says what to do.
    """
    if isinstance(config, Config):
        if overrides:
            raise InputError("overrides go with a file or a mapping; a Config is what it is")
        settings = config
    elif isinstance(config, Mapping):
        settings = build_config(config, overrides)
    else:
        settings = load_config(config, overrides)
    return RunTables(perform(settings, stages_of("run", settings), overwrite=overwrite, tracked=True)[0])


def stages_of(command: str, config: Config) -> list[str]:
    """Stages that a command runs. `train` reads the images first; it is the first stage that needs them."""
    from ldsaug_ray.models import CODECS

    if command == "run":
        exact = CODECS.get(config.vae.kind).exact
        left_out = {"evaluate"} if config.evaluate.extractor is None else set()
        return [name for name in STAGES if name not in left_out | ({"finetune"} if exact else set())]
    return ["prepare", "train"] if command == "train" else [command]


def perform(
    config: Config, names: Sequence[str], *, overwrite: bool = False, verbose: bool = False, tracked: bool = False
) -> tuple[RunDir, dict[str, State]]:
    """Look at what can be looked at beforehand, open the run directory, enter the engine, bring stages to completion.

    Args:
        config: the settings.
        names: stages, in pipeline order.
        overwrite: discard a run on other data.
        verbose: show the engine's own messages.
        tracked: tell MLflow, where the settings want it.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    try_networks(config, open_run_dir(config, overwrite=overwrite, create=False), names)
    with opened(config, overwrite=overwrite, verbose=verbose) as job, ExitStack() as held:
        tracked = tracked and config.tracking.enabled
        send = held.enter_context(tracked_run(config, job.run, job.console, names)) if tracked else nothing
        left = [s.stage for s in plan_steps(config, job.run, names) if s.state != "complete"]
        alone = all(STAGES[name].on_driver(config) for name in left)
        with nullcontext() if alone else job.engine:
            return job.run, run_stages(job, names, finished=send)


@contextmanager
def opened(config: Config, *, overwrite: bool, verbose: bool) -> Iterator[Job]:
    """The job, while no other driver can be at work in its run directory; its engine is still to be entered.

    Raises:
        InputError, StorageError: as `open_run_dir`, or the engine's processes would not see the run directory.
    """
    engine, console = engine_of(config, verbose=verbose), make_console()
    engine.check_place("run_dir", config.run_dir)
    with ExitStack() as held:
        yield Job(config, open_run_dir(config, overwrite=overwrite, held=held), console, engine, alone=True)
