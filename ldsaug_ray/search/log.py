"""A search in MLflow: a parent run, and a child run a trial, which a tag finds again. The driver owns them all.

What a trial came to lies in the run directory, so that a server that goes away takes nothing with it: what it lacks is
sent when it answers again, at the end of the search, or by the same command later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError
from ldsaug_ray.experiment.results import first_drawn
from ldsaug_ray.report._scores import selected_csv
from ldsaug_ray.report.sheets import COLUMNS, drawn
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.tracking import Status, Tracker
from ldsaug_ray.search.objectives import objective_values
from ldsaug_ray.search.plan import Search
from ldsaug_ray.search.trials import Trial
from ldsaug_ray.stages.shared.job import Job

TRIAL, STATE, BEST = "ldsaug.trial", "ldsaug.state", "ldsaug.best"
IDENTITY = "ldsaug.identity"  # of what the numbers depend on
SOUGHT = "ldsaug.sought"  # by which objectives: those of a later search may be others
AGAIN_SECONDS = 30.0  # a server that did not answer is left alone so long
_OBJECTIVES = ("objective", "second objective")
_SENT = tuple(name for name in STAGES if name not in ("prepare", "train", "encode", "report"))


class SearchLog:
    """MLflow's runs of a search; a context, which ends them as what they were. Nothing where tracking is off."""

    def __init__(self, job: Job, search: Search):
        self._job, self.search = job, search
        self._parent: Tracker | None = None
        if search.config.tracking.enabled:
            tags = {"ldsaug.search": job.run.root.name}
            self._parent = Tracker.start(search.config, job.run, tags, noted_as="mlflow_search")
        self._thread = ThreadPoolExecutor(1, "mlflow")  # a slow server must not hold up the trials
        self._children: dict[str, Tracker] = {}
        self._running: set[str] = set()
        self._ended: set[str] = set()
        self._sought = "; ".join(search.titles)
        self._unsent: dict[str, Trial] = {}
        self._not_before = 0.0
        self._told: set[str] = set()
        self._found_any = False

    def __enter__(self) -> SearchLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._parent is None:
            return
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        status: Status = "KILLED" if stopped else "FINISHED" if kind is None and self._found_any else "FAILED"

        def end() -> None:
            for key in self._running & self._children.keys():
                self._children[key].end(status)
            self._parent_run.end(status)

        self.flush()
        self._thread.submit(self._try, end).result()
        self._thread.shutdown()
        if self._unsent:
            self._say(f"{len(self._unsent)} trials could not be sent to MLflow; the same command again tries it")

    def send(self, trial: Trial) -> None:
        """Bring MLflow's run of a trial to where the trial is, soon."""
        if self._parent is None:
            return
        if trial.state == "running":
            self._running.add(trial.key)
        else:
            self._running.discard(trial.key)
        self._unsent[trial.key] = trial
        self._thread.submit(self._send_all)

    def flush(self) -> None:
        """Wait until what was given has been sent, or could not be."""
        self._thread.submit(self._send_all).result()

    def catch_up(self, trials: Sequence[Trial]) -> None:
        """Send what an earlier attempt could not."""
        if self._parent is None:
            return

        def compare() -> None:
            there = {
                key: tuple(map(tags.get, (STATE, SOUGHT, IDENTITY)))
                for key, (_, tags) in self._parent_run.children(TRIAL).items()
            }
            over = (t for t in trials if t.state != "running" and t.identity)  # without one it never had a run
            self._unsent |= {t.key: t for t in over if there.get(t.key) != (t.state, self._sought, t.identity)}

        self._thread.submit(self._try, compare).result()
        self._thread.submit(self._send_all)

    def finish(self, trials: Sequence[Trial]) -> None:
        """Mark the best, log its model, and keep the page."""
        best = self.search.best(trials)
        self._found_any = bool(best)
        if self._parent is None:
            return

        def last() -> None:
            self._not_before = 0.0
            self._send_all()
            self._try(partial(self._send_best, best))

        self._thread.submit(last).result()

    @property
    def _parent_run(self) -> Tracker:
        assert self._parent is not None
        return self._parent

    def _send_all(self) -> None:
        for key, trial in list(self._unsent.items()):
            if self._try(partial(self._send, trial)) and self._unsent.get(key) is trial:
                del self._unsent[key]

    def _send(self, trial: Trial) -> None:
        config = self.search.trial_config(trial.point)
        if trial.key not in self._children or trial.key in self._ended:
            self._ended.discard(trial.key)
            self._children[trial.key] = self._parent_run.child(
                config, f"trial {trial.number}", TRIAL, trial.key, self.search.config, trial.point.keys()
            )
        child = self._children[trial.key]
        points: list[tuple[str, float, int]] = []
        tags: dict[str, str] = {}
        for step, measures in trial.curve:
            sent, identity = f"ldsaug.sent.step-{step}", fingerprint([measures, self._sought])
            if child.tags.get(sent) == identity:
                continue
            tags[sent] = identity
            with suppress(InputError):  # measured for other objectives
                values = objective_values(self.search.config.tune.objectives, measures)
                points += [(name, value, step) for name, value in zip(_OBJECTIVES, values, strict=False)]
            points += [(name, value, step) for name, value in measures.items() if value is not None]
        if trial.state == "running":
            if tags:
                child.log_metrics(points, tags)
            return
        if trial.state in ("finished", "stopped") and self.search.trains:
            run = RunDir(Location.of(config.run_dir))
            child.send(config, run, _SENT, models=False)
            last = "evaluate" if trial.state == "finished" else "select"
            child.once("files", run.require(last, "digest"), partial(self._send_files, child, run))
        self._ended.add(trial.key)
        child.end("FINISHED" if trial.state in ("finished", "stopped") else "FAILED")
        tags |= {"ldsaug.why": self.search.why(trial)[:5000], SOUGHT: self._sought, IDENTITY: trial.identity}
        child.log_metrics(points, {**tags, STATE: trial.state})  # with the last call: it says that all was sent

    def _send_files(self, child: Tracker, run: RunDir) -> None:
        """The selected candidates and a sheet of samples."""
        with TemporaryDirectory() as folder:
            files = {"selected.csv": (selected_csv(run) or "").encode()}
            items = first_drawn(run.root, "finetune", 4 * COLUMNS, self.search.config.domain)
            files |= {} if items is None else drawn("samples", items)
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            child.log_files([Location.of(Path(folder) / name) for name, content in files.items() if content], "")

    def _send_best(self, best: Sequence[Trial]) -> None:
        parent = self._parent_run
        parent.send(self.search.config, self._job.run, ["prepare"])
        parent.log_files(self._job.run.folder("search").files(recursive=False), "search")
        children = parent.children(TRIAL)
        for trial in best if not self.search.trains else ():
            run = RunDir(Location.of(self.search.trial_config(trial.point).run_dir))
            if trial.key in children and (entry := run.entry("select")) is not None:
                child, _ = children[trial.key]
                child.once("files", entry["digest"], partial(self._send_files, child, run))
        for key, (child, tags) in children.items():
            is_best = key in {trial.key for trial in best}
            if is_best or BEST in tags:
                child.tag(BEST, str(is_best).lower())
        parent.tag(SOUGHT, self._sought)
        parent.tag("ldsaug.best_trial", best[0].key if best else "")
        if not best:
            return
        first = best[0]
        values = objective_values(self.search.config.tune.objectives, first.measures)
        parent.log_metrics([("best objective", values[0], first.number)])
        if self.search.trains:
            config = self.search.trial_config(first.point)
            run, name = RunDir(Location.of(config.run_dir)), self.search.config.tune.register_as
            weights = run.folder("finetune/vae.safetensors")
            child, _ = children[first.key]
            child.once(
                "vae",
                f"{run.require('finetune', 'digest')} {name or ''}",
                partial(child.log_vae, config, weights, "finetuned", name),
            )

    def _try(self, send: Callable[[], object]) -> bool:
        """Whether MLflow took it. It must not end the search."""
        if time.monotonic() < self._not_before:
            return False
        try:
            send()
        except Exception as e:
            self._say(f"MLflow does not take all ({first_line(e)}); the search goes on, what it lacks is sent later")
            try:
                self._parent_run.ping()
            except Exception:  # it is away: not every trial shall wait for it
                self._not_before = time.monotonic() + AGAIN_SECONDS
            return False
        return True

    def _say(self, text: str) -> None:
        """Each thing once."""
        if text not in self._told:
            self._job.console.print(text, highlight=False)
        self._told.add(text)
