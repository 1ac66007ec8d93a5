"""A search over settings. Images, model and latents are made once, scores of all bandwidths in one pass; a trial costs
selection, fine-tuning and evaluation.

What is known of a search is in its run directory (`search/trials/`, and a run directory a trial), not in an engine's
own state: the same command goes on with what is left, on whatever cluster, and unpickles nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines.base import Trials
from ldsaug_ray.engines.resources import pool_of
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.search.judge import Judge
from ldsaug_ray.search.log import SearchLog
from ldsaug_ray.search.objectives import measures_in
from ldsaug_ray.search.page import search_page
from ldsaug_ray.search.plan import Search
from ldsaug_ray.search.points import SearchPoints
from ldsaug_ray.search.proxies import Prepared
from ldsaug_ray.search.sampler import open_sampler
from ldsaug_ray.search.space import Point, shown
from ldsaug_ray.search.tables import trials_csv
from ldsaug_ray.search.trial import KEPT_BYTES, OF_A, Shared, TrialMaker
from ldsaug_ray.search.trials import Trial, key_of, read_trials
from ldsaug_ray.stages.evaluate import label_array, real_images
from ldsaug_ray.stages.score import score_at
from ldsaug_ray.stages.shared.adopt import adopt
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import run_stages

_SHARED = ("prepare", "train", "encode")
WRITE_SECONDS = 60.0  # the page is renewed so often while trials run
PROCESS_BYTES = 10**9  # of a trial's process, besides latents and scores


def run_search(job: Job, log: SearchLog, deadline: float | None) -> tuple[Search, list[Trial]]:
    """Every trial that is left; gives the search as it was run, and all its trials.

    Args:
        deadline: of time.monotonic(), after which no trial starts.

    Raises:
        LdsaugError: the message says what to do.
    """
    search, run = log.search, job.run
    if search.trains:  # an autoscaler's first GPU is to be there before trials are laid out
        job.pool(search.config.finetune.workers, "finetune")
    search = log.search = replace(search, one_gpu=any(node.get("GPU") for node in job.engine.nodes()))
    run_stages(job, _SHARED)
    donors = [_baseline(job, search), run] if search.trains else [run]
    scorings = _scorings(job, search)
    kept = _Kept(job, search, {name: run.require(name, "digest") for name in _SHARED}, log)
    if kept.others:
        job.console.print(f"{kept.others} trials of other settings or another space are left out", highlight=False)
    log.catch_up(kept.all())
    try:
        _search(job, search, kept, donors, scorings, deadline)
    finally:  # stopped from outside, too, there is a page of what there is
        kept.write()
    if not search.trains:
        _keep_best(job, search, scorings, kept.all())
    return search, kept.all()


def _search(
    job: Job,
    search: Search,
    kept: _Kept,
    donors: Sequence[RunDir],
    scorings: Mapping[str, RunDir],
    deadline: float | None,
) -> None:
    asked = search.config.tune
    sampler = open_sampler(asked, search.space, kept.all())
    if not sampler.has_more:
        job.console.print("every trial is over already", highlight=False)
        return
    real, places = _real(job, search), {key: run.root for key, run in scorings.items()}
    points = SearchPoints(sampler, kept, kept.all(), asked, deadline)
    judge = Judge.open(job) if search.looks_at_images else None
    with job.engine.lines(job.console) as say:
        shared = Shared(search, [donor.root for donor in donors], places, real, judge, job.engine, say)
        job.engine.trials(Trials(points, TrialMaker, (shared,), _at_once(job, search, real), search.trains))
    if points.error is not None:
        raise points.error


def _baseline(job: Job, search: Search) -> RunDir:
    """The model before fine-tuning, evaluated; its features of real images serve all trials."""
    with ExitStack() as held:
        config = search.baseline_config()
        run = open_run_dir(config, held=held)
        inner = replace(job, config=config, run=run)
        adopt(inner, _SHARED, [job.run])
        run_stages(inner, [*_SHARED, "evaluate"])
        return run


def _scorings(job: Job, search: Search) -> dict[str, RunDir]:
    """Scores of every bandwidth in one pass over the latents, by the key of what changes them."""
    runs: dict[str, RunDir] = {}
    together: dict[str, list[tuple[Config, RunDir]]] = {}
    for scoring in search.space.scorings():
        config = search.scoring_config(scoring)
        run = RunDir(Location.of(config.run_dir))
        run.create()
        runs[key_of(scoring)] = run
        other = {name: value for name, value in scoring.items() if not name.startswith("score.sigma")}
        together.setdefault(json.dumps(other, sort_keys=True), []).append((config, run))
    for targets in together.values():
        score_at(replace(job, config=targets[0][0]), targets)
    return runs


def _keep_best(job: Job, search: Search, scorings: Mapping[str, RunDir], trials: Sequence[Trial]) -> None:
    """Without training, A of the best trials, as the run directory of each."""
    for trial in search.best(trials):
        config = search.trial_config(trial.point)
        with ExitStack() as held:
            inner = replace(job, config=config, run=open_run_dir(config, held=held))
            adopt(inner, OF_A[:4], [job.run, scorings[key_of(search.scoring(trial.point))]])
            run_stages(inner, OF_A[:5])


class _Kept:
    """The trials on disk, and what is told of them while they run."""

    def __init__(self, job: Job, search: Search, digests: Mapping[str, str], log: SearchLog):
        self._job, self._search, self._digests, self._log = job, search, digests, log
        there = read_trials(job.run.root)
        kept = [t for t in there if search.space.holds(t.point)]
        self._trials = {t.key: t for t in kept if t.identity == self._identity(t.point)[0]}
        self._numbers = {t.key: t.number for t in there}  # a trial that is done again keeps its own: MLflow has it
        self._spent: dict[str, float] = {}  # in attempts before
        self.others = len(there) - len(self._trials)
        self._written = time.monotonic()

    def all(self) -> list[Trial]:
        """As they are now, in the order of starting."""
        return sorted(self._trials.values(), key=lambda t: t.number)

    def begin(self, point: Point) -> Trial:
        """A trial starts, or is tried again; it has failed where these values are not possible together."""
        key = key_of(point)
        before = self._trials.get(key)
        number = self._numbers.setdefault(key, max(self._numbers.values(), default=0) + 1)
        identity, why = self._identity(point)
        trial = Trial(point, number, identity) if before is None else replace(before, state="running", why="")
        self._spent[key] = trial.seconds
        if why:
            trial = replace(trial, state="failed", why=why)
        self._put(trial)
        self._say(trial, f"{shown(point)}{f': {why}' if why else ''}")
        if not why:
            self._log.send(trial)
        return trial

    def evaluated(self, key: str, found: Mapping[str, Any]) -> None:
        """An evaluation of a running trial."""
        seconds = self._spent[key] + found["seconds"]
        trial = replace(self._trials[key], why=found["failed"], seconds=round(seconds, 3))
        if not trial.why:
            curve = (*(point for point in trial.curve if point[0] < found["step"]), (found["step"], found["measures"]))
            trial = replace(trial, curve=curve, measures=found["measures"], step=found["step"])
        self._put(trial)
        if not found["over"]:
            self._say(trial, f"{self._search.result_of(trial)} at step {trial.step:,}")
            self._log.send(trial)

    def end(self, key: str, *, stopped: bool = False, crashed: str = "") -> Trial:
        """A trial is over."""
        trial = self._trials[key]
        trial = replace(
            trial,
            state="crashed" if crashed else "failed" if trial.why else "stopped" if stopped else "finished",
            why=crashed or trial.why,
        )
        self._put(trial)
        outcome = f"{trial.why.splitlines()[0]} …" if "\n" in trial.why else trial.why or self._search.result_of(trial)
        self._say(trial, f"{trial.state}: {outcome}, {trial.seconds:,.0f} s")
        self._log.send(trial)
        if time.monotonic() > self._written + WRITE_SECONDS:
            self.write()
        return trial

    def write(self) -> None:
        """`search/`: every trial so far as a table, and the page."""
        folder = self._job.run.folder("search")
        table = trials_csv(self._search, self.all())
        (folder / "trials.csv").write_bytes(table.encode())
        (folder / "index.html").write_bytes(search_page(self._search, self.all(), table).encode())
        self._written = time.monotonic()

    def _identity(self, point: Point) -> tuple[str, str]:
        """The trial's identity; or nothing, and why its values are not possible together."""
        try:
            return self._search.identity(point, self._digests), ""
        except ConfigError as e:
            return "", str(e)

    def _say(self, trial: Trial, text: str) -> None:
        style = "red" if trial.why else None
        self._job.console.print(f"trial {trial.number}: {text}", style=style, highlight=False)

    def _put(self, trial: Trial) -> None:
        self._trials[trial.key] = trial
        trial.write(self._job.run.root)


def _real(job: Job, search: Search) -> Prepared:
    """The real latents and their labels, read and measured once."""
    latents = read_latents(job.run, "train")
    names = search.config.evaluate.attributes
    test = [label_array(real_images(job, "test"), name) for name in names]
    columns = [latents.attribute_names.index(name) for name in names]
    real = Prepared.of(
        latents.z,
        read_latents(job.run, "test").z,
        latents.attributes[:, columns],
        np.stack(test, axis=1) if test else np.empty((0, 0), np.int32),
        search.config.seed,
        search.measures_of_a,
    )
    for name in measures_in(search.config.tune.objectives):
        if name in real.lacks:  # else each trial would find out by itself
            raise InputError(f"tune.objectives: {name} has no value for these images: {real.lacks[name]}")
    return real


def _at_once(job: Job, search: Search, real: Prepared) -> int:
    """Trials at once: as many as fine-tunings fit in the cluster, so that none waits for another's resources; without
    training as many as there are CPUs, and memory for what each holds."""
    asked, workers = search.config.tune.concurrent, search.config.finetune.workers
    if asked != "auto":
        return asked
    if not search.trains:
        each = {"CPU": 1, "memory": real.train.nbytes + KEPT_BYTES + PROCESS_BYTES}
        return max(1, sum(int(min(node.get(r, 0.0) / x for r, x in each.items())) for node in job.engine.nodes()))
    if workers.count == "auto" and not search.one_gpu:
        return 1  # one process trains with all cores
    one = pool_of(workers.model_copy(update={"count": "auto"}), "finetune", job.engine.nodes())
    return max(1, one.count // (1 if workers.count == "auto" else workers.count))
