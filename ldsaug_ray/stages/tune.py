"""`ldsaug tune`: a search over settings by Ray Tune. Images, model and latents are made once, scores of all bandwidths
in one pass; a trial costs selection, fine-tuning and evaluation.

What is known of a search is in its run directory (`search/trials/`, and a run directory a trial), not in Ray Tune's own
state: the same command goes on with what is left, on whatever cluster, and unpickles nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.report._latents import read_latents as read_training_latents
from ldsaug_ray.run.directory import RunDir, open_run_dir
from ldsaug_ray.run.progress import make_console, repeated
from ldsaug_ray.run.tracking import view_command
from ldsaug_ray.search.objectives import measures_in
from ldsaug_ray.search.page import render
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.proxies import Real
from ldsaug_ray.search.sampler import open_sampler
from ldsaug_ray.search.space import Point, shown
from ldsaug_ray.search.tables import STATES, rows_of, trials_csv
from ldsaug_ray.search.trials import Trial, key_of, read_trials
from ldsaug_ray.stages._adopt import adopt
from ldsaug_ray.stages._beside import Board, beside_driver
from ldsaug_ray.stages._job import Job, node_resources, pool_for, pool_of
from ldsaug_ray.stages._search_log import SearchLog
from ldsaug_ray.stages._session import ray_session
from ldsaug_ray.stages._trial import KEPT_BYTES, OF_A, Shared
from ldsaug_ray.stages.command import place_of, require_faiss, seen_by_all, try_extractor
from ldsaug_ray.stages.encode import read_latents
from ldsaug_ray.stages.evaluate import label_array, real_images
from ldsaug_ray.stages.runner import run_stages
from ldsaug_ray.stages.score import score_at

_SHARED = ("prepare", "train", "encode")
POLL_SECONDS = 1.0
WRITE_SECONDS = 60.0  # the page is renewed so often while trials run
PROCESS_BYTES = 10**9  # of a trial's process, besides latents and scores
SHOWN = 10  # trials in the table at the end
COMMANDS = 3  # of a front's trials; the page has more


def tune_command(
    path: str,
    overrides: Sequence[str],
    *,
    dry_run: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    verbose: bool = False,
) -> int:
    """Run a search, or what is left of it; returns the exit code, 1 where no trial came to a result.

    Args:
        path: of the settings.
        overrides: `name=value`.
        dry_run: say what would be done, and do nothing.
        overwrite: discard a run directory of other data.
        resume: there must be something to go on with.
        verbose: show Ray's own messages.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    search = plan_search(path, overrides)
    config, hours = search.config, search.config.tune.hours
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    before = open_run_dir(config, overwrite=overwrite, create=False)
    if resume and not read_trials(before.root):
        raise InputError(
            f"--resume: there is no search in {place_of(before.root)} to go on with; leave it out to begin"
        )
    if dry_run:
        _print_plan(search, before)
        return 0
    if search.trains:
        try_extractor(search.baseline_config(), open_run_dir(search.baseline_config(), create=False))
    seen_by_all("run_dir", config.run_dir)
    with ExitStack() as held:
        run = open_run_dir(config, overwrite=overwrite, held=held)
        job = Job(config, run, make_console(), verbose, alone=True)
        log = held.enter_context(SearchLog(job, search))
        held.enter_context(ray_session(config, verbose=verbose))
        if search.trains:  # an autoscaler's first GPU is to be there before trials are laid out
            pool_for(job, config.finetune.workers, "finetune")
        search = replace(search, one_gpu=any(node.get("GPU") for node in node_resources()))
        log.search = search
        run_stages(job, _SHARED)
        donors = [run]
        if search.trains:
            donors = [_baseline(job, search), run]
        scorings = _scorings(job, search)
        kept = _Kept(job, search, {name: run.require(name, "digest") for name in _SHARED}, log)
        if kept.others:
            job.console.print(f"{kept.others} trials of other settings or another space are left out", highlight=False)
        log.catch_up(kept.all())
        try:
            _search(job, search, kept, donors, scorings, deadline)
        finally:  # stopped from outside, too, there is a page of what there is
            kept.write()
        trials = kept.all()
        if not search.trains:
            _keep_best(job, search, scorings, trials)
        log.finish(trials)
    _print_results(search, run, trials)
    if config.tracking.enabled:
        print(f"MLflow  {view_command()}")
    return 0 if search.best(trials) else 1


def _search(
    job: Job,
    search: Search,
    kept: _Kept,
    donors: Sequence[RunDir],
    scorings: Mapping[str, RunDir],
    deadline: float | None = None,
) -> None:
    """Every trial that is left."""

    sampler = open_sampler(search.config.tune, search.space, kept.all())
    if not sampler.has_more:
        job.console.print("every trial is over already", highlight=False)
        return
    from ldsaug_ray.stages._ray_tune import run_trials

    board = beside_driver(Board)
    shared = _shared(job, search, donors, scorings, board)
    with _lines(board, job.console):
        run_trials(shared, sampler, kept, kept.all(), _at_once(search, shared.real), deadline)


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

    def told(self, key: str, found: Mapping[str, Any]) -> None:
        """An evaluation of a running trial."""
        seconds = self._spent[key] + found["seconds"]
        trial = replace(self._trials[key], why=found["failed"], seconds=round(seconds, 3))
        if not trial.why:
            curve = (*(point for point in trial.curve if point[0] < found["step"]), (found["step"], found["measures"]))
            trial = replace(trial, curve=curve, measures=found["measures"], step=found["step"])
        self._put(trial)
        if not found["over"]:
            self._say(trial, f"{self._search.told(trial)} at step {trial.step:,}")
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
        told = f"{trial.why.splitlines()[0]} …" if "\n" in trial.why else trial.why or self._search.told(trial)
        self._say(trial, f"{trial.state}: {told}, {trial.seconds:,.0f} s")
        self._log.send(trial)
        if time.monotonic() > self._written + WRITE_SECONDS:
            self.write()
        return trial

    def write(self) -> None:
        """`search/`: every trial so far as a table, and the page."""
        folder = self._job.run.folder("search")
        table = trials_csv(self._search, self.all())
        (folder / "trials.csv").write_bytes(table.encode())
        (folder / "index.html").write_bytes(render(self._search, self.all(), table).encode())
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


def _shared(job: Job, search: Search, donors: Sequence[RunDir], scorings: Mapping[str, RunDir], board: Any) -> Shared:
    """What every trial needs, read and measured once."""
    latents = read_training_latents(job.run)
    names = search.config.evaluate.attributes
    test = [label_array(real_images(job, "test"), name) for name in names]
    columns = [latents.attribute_names.index(name) for name in names]
    real = Real.of(
        latents.z,
        read_latents(job, "test")[1],
        latents.attributes[:, columns],
        np.stack(test, axis=1).astype(np.int8) if test else np.empty((0, 0), np.int8),
        search.config.seed,
        search.measures_of_a,
    )
    for name in measures_in(search.config.tune.objectives):
        if name in real.lacks:  # else each trial would find out by itself
            raise InputError(f"tune.objectives: {name} has no value for these images: {real.lacks[name]}")
    places = {key: run.root for key, run in scorings.items()}
    donated = [donor.root for donor in donors]
    return Shared(search, donated, places, real, board, os.getcwd(), job.verbose)


def _at_once(search: Search, real: Real) -> int:
    """Trials at once: as many as fine-tunings fit in the cluster, so that none waits for another's resources; without
    training as many as there are CPUs, and memory for what each holds."""
    asked, workers = search.config.tune.concurrent, search.config.finetune.workers
    if asked != "auto":
        return asked
    if not search.trains:
        each = {"CPU": 1, "memory": real.train.nbytes + KEPT_BYTES + PROCESS_BYTES}
        return max(1, sum(int(min(node.get(r, 0.0) / x for r, x in each.items())) for node in node_resources()))
    if workers.count == "auto" and not search.one_gpu:
        return 1  # one process trains with all cores
    one = pool_of(workers.model_copy(update={"count": "auto"}), "finetune", node_resources())
    return max(1, one.count // (1 if workers.count == "auto" else workers.count))


@contextmanager
def _lines(board: Any, console: Console) -> Iterator[None]:
    """Print what trials say of their stages."""
    import ray

    def look() -> None:
        with suppress(ray.exceptions.RayError):  # progress is a courtesy
            for line in ray.get(board.take.remote(), timeout=10):
                console.print(line, highlight=False, soft_wrap=True, style="dim")

    with repeated(POLL_SECONDS, look):
        yield


def _print_results(search: Search, run: RunDir, trials: Sequence[Trial]) -> None:
    console = Console(width=None if Console().is_terminal else 150)
    head, rows = rows_of(search, trials, most=SHOWN)
    table = Table(title=f"the best of {_counted(len(trials), 'trial')}", title_justify="left")
    for n, name in enumerate(head):
        table.add_column(name, justify="right" if n else "left")
    for row in rows:
        table.add_row(*row)
    if rows:
        console.print(table)
    for state in ("stopped", "failed", "crashed"):
        if count := sum(t.state == state for t in trials):
            print(f"{count} {STATES[state]}")
    if without := [t for t in trials if t.state == "finished" and search.why(t)]:
        print(f"{len(without)} finished without a result: {search.why(without[0])}")
    best = search.best(trials)
    if not best:
        why = next(filter(None, map(search.why, trials)), "")
        print(f"no trial came to a result{why and f': {why}'}")
    if len(best) > 1:
        numbers = ", ".join(str(t.number) for t in best)
        print(f"the front: trials {numbers}; MLflow's best is {best[0].number}, which is first in {search.titles[0]}")
    for trial in best[:COMMANDS]:
        for what, command in search.commands(trial):
            print(f"trial {trial.number}, {what}: {command}")
    if len(best) > COMMANDS:
        print(f"the page has the commands of the other {len(best) - COMMANDS}")
    print(f"search  {place_of(run.folder('search') / 'index.html')}")


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def _print_plan(search: Search, run: RunDir) -> None:
    """The table of `--dry-run`."""
    asked = search.config.tune
    table = Table(title=f"search {place_of(run.root)}", title_justify="left")
    for column in ("setting", "values"):
        table.add_column(column, overflow="fold")
    for dimension in search.space.dimensions:
        table.add_row(dimension.name, dimension.text)
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    size = search.space.size
    points = size if asked.search == "grid" else min(asked.trials, size)
    scorings = _counted(len(search.space.scorings()), "scoring")
    print(f"{_counted(int(points), 'trial')} by {asked.search}, {scorings} of the candidates in one pass")
    print(f"small is to be: {'; '.join(search.titles)}" + ("" if search.trains else " (no training is needed)"))
    over = sum(t.is_over for t in read_trials(run.root))
    if over:
        print(f"{over} trials of searches here are over")
