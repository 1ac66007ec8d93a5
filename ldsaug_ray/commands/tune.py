"""`ldsaug tune`: a search over settings, its plan, and the table of the best trials."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ldsaug_ray.api.runs import opened
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.mlflow_place import view_command
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import print_table
from ldsaug_ray.search.log import SearchLog
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.run import run_search
from ldsaug_ray.search.tables import STATES, rows_of
from ldsaug_ray.search.trials import Trial, read_trials
from ldsaug_ray.stages.shared.checks import require_faiss, try_networks

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
        resume: there must be something to go on with.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    search = plan_search(path, overrides)
    config, hours = search.config, search.config.tune.hours
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    before = open_run_dir(config, overwrite=overwrite, create=False)
    if resume and not read_trials(before.root):
        raise InputError(f"--resume: there is no search in {before.root.shown} to go on with; leave it out to begin")
    if dry_run:
        _print_plan(search, before)
    baseline = search.baseline_config() if search.trains else config
    try_networks(baseline, open_run_dir(baseline, create=False), ("train", "evaluate") if search.trains else ("train",))
    if dry_run:
        return 0
    with opened(config, overwrite=overwrite, verbose=verbose) as job, SearchLog(job, search) as log, job.engine:
        search, trials = run_search(job, log, deadline)
        log.finish(trials)
    _print_results(search, job.run, trials)
    if config.tracking.enabled:
        print(f"MLflow  {view_command()}")
    return 0 if search.best(trials) else 1


def _print_results(search: Search, run: RunDir, trials: Sequence[Trial]) -> None:
    head, rows = rows_of(search, trials, most=SHOWN)
    if rows:
        print_table(f"the best of {_counted(len(trials), 'trial')}", head, rows, 150)
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
    print(f"search  {(run.folder('search') / 'index.html').shown}")


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def _print_plan(search: Search, run: RunDir) -> None:
    """The table of `--dry-run`."""
    asked = search.config.tune
    rows = [(d.name, d.text) for d in search.space.dimensions]
    print_table(f"search {run.root.shown}", ("setting", "values"), rows, 150, "f")
    size = search.space.size
    points = size if asked.search == "grid" else min(asked.trials, size)
    scorings = _counted(len(search.space.scorings()), "scoring")
    print(f"{_counted(int(points), 'trial')} by {asked.search}, {scorings} of the candidates in one pass")
    print(f"small is to be: {'; '.join(search.titles)}" + ("" if search.trains else " (no training is needed)"))
    over = sum(t.is_over for t in read_trials(run.root))
    if over:
        print(f"{over} trials of searches here are over")
