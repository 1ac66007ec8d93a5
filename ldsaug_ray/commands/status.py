"""`ldsaug status RUN_DIR`: what of a run is done, running or quarantined, and what the next command would do.

Read from the run directory alone, from any machine that sees it; nothing is written, and Ray is not needed.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ldsaug_ray.api.runs import stages_of
from ldsaug_ray.commands.summary import words_of
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import driver_at_work
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.progress import print_table
from ldsaug_ray.run.quarantine import read_quarantine
from ldsaug_ray.selection import sentences_of
from ldsaug_ray.stages.shared.checkpoints import RECORD, Checkpoints
from ldsaug_ray.stages.shared.runner import Step, plan_steps

_COUNTS = ("rows_in", "rows_out", "rows_dropped", "rows_quarantined")


def status_command(place: str) -> int:
    """Print the state of a run directory, a search's or an experiment's too; returns the exit code.

    Raises:
        InputError: it is none.
        StorageError: it cannot be read.
    """
    root = Location.of(place)
    run = RunDir(root)
    if run.saved_config() is None:
        raise InputError(f"{place}: no run directory (it has no config.yaml); it is the setting run_dir of a run")
    config = load_config((root / "config.yaml").uri)
    driver = driver_at_work(root)
    who = (
        f"{driver} is at work"
        if driver
        else "no command is at work"
        if root.is_local
        else "who is at work is not known"
    )
    print(f"run {root.shown}: {who}")
    if (root / "arms").names():
        _print_arms(root)
    elif not run.manifest["stages"] and not (root / "_progress").names():
        print("nothing is done yet")
    else:
        _print_stages(config, run, driver)
    if (root / "search/trials").names():
        from ldsaug_ray.search.tables import STATES
        from ldsaug_ray.search.trials import read_trials

        trials = read_trials(root)
        counts = Counter(t.state for t in trials)
        print(f"search: {len(trials)} trials: {'; '.join(f'{n} {STATES[s]}' for s, n in counts.items())}")
        print("`ldsaug tune` again goes on with what is left, and does nothing where nothing is")
    return 0


def _print_stages(config: Config, run: RunDir, driver: str | None) -> None:
    names = stages_of("run", config)
    of_search = bool((run.root / "scorings").names()) and run.entry("score") is None
    if of_search:  # which has no more of its own
        names = ["prepare", "train", "encode"]
    steps = plan_steps(config, run, names)
    head = ("stage", "state", "in", "kept", "dropped", "quarantined", "rate", "")
    rows = [(step.stage, *_cells(run, step, run.entry(step.stage), driver)) for step in steps]
    print_table(None, head, rows, 130, "llrrrrrf")
    selected = run.entry("select")
    if selected and any(s.stage == "select" and s.state == "complete" for s in steps):
        said = words_of(run)
        for note in sentences_of(selected):
            print(f"select: {said(note)}")
    quarantine = read_quarantine(run)
    for reason in quarantine.reasons:
        print(f"quarantined: {reason.count:,} × {reason.reason} (such as {', '.join(reason.examples)})")
    left = [s for s in steps if s.state != "complete"]
    if not left and of_search:
        print("what all trials share is done")
    elif not left:
        print("the same command would do nothing: everything is done")
    else:
        words = {"continue": "continue", "run": "run", "waiting": "run"}
        print(f"the same command would {', '.join(f'{words[s.state]} {s.stage}' for s in left)}")


def _cells(run: RunDir, step: Step, entry: dict[str, Any] | None, driver: str | None) -> list[str]:
    """State, counts, rate and remark of a stage."""
    if step.state == "continue":
        state = "running" if driver else "interrupted" if run.root.is_local else "begun"
        return [state, "", "", "", "", "", _progress(run, step.stage)]
    if entry is None:
        return ["to do", "", "", "", "", "", "" if step.state == "waiting" else step.why]
    counts = [f"{entry[name]:,}" for name in _COUNTS]
    rate = entry["rows_per_second"]
    speed = f"{rate:,.0f} {words_of(run)(STAGES[step.stage].unit)}/s" if rate and step.stage != "report" else ""
    if step.state == "complete":
        return ["done", *counts, speed, f"{entry['seconds']:,.1f} s"]
    return ["out of date", *counts, speed, step.why]


def _progress(run: RunDir, stage: str) -> str:
    """What an attempt that is not over has done."""
    units = run.finished_units(stage).values()
    if units:
        return f"{len(units):,} units, {sum(u.counts.rows_in for u in units):,} rows so far"
    last = Checkpoints(run.root, stage).last()
    if last is None:
        return "nothing is kept of it yet"
    seen = (last.folder / RECORD).info().mtime_ns
    ago = "" if seen is None else f", {max(0.0, time.time() - seen / 1e9):,.0f} s ago"
    return f"last checkpoint: step {last.step:,}{ago}"


def _print_arms(root: Location) -> None:
    """Runs of an experiment: how many of each arm have results."""
    for arm in (root / "arms").names():
        cells = (root / f"arms/{arm}").names()
        done = sum(RunDir(root / f"arms/{arm}/{cell}").entry("evaluate") is not None for cell in cells)
        print(f"arm {arm}: {done} of {len(cells)} runs that were begun have results")
