"""Running stages in order: what is complete is skipped, what was interrupted goes on, the rest is done.

The plan is computed from the run directory alone, so `--dry-run` shows exactly what a run would do.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ldsaug_ray.config import Config
from ldsaug_ray.domains import domain_of
from ldsaug_ray.errors import LdsaugError, MissingStageError, StorageError
from ldsaug_ray.run.directory import RunDir, UnitResult
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome

SAME = "same settings and input"
State = Literal["complete", "continue", "run", "waiting"]
StageFunction = Callable[[Job, Mapping[int, UnitResult]], Outcome]


@dataclass(frozen=True)
class Step:
    """What will happen to one stage.

    Attributes:
        state: complete (skipped), continue (an interrupted attempt goes on), run, or waiting (run, once a stage
            before it has given its result).
        why: in words.
        fingerprint: none while an input is not known yet, or cannot be read.
        before: what it was for versions for which fewer settings counted; their results are taken as they are.
    """

    stage: str
    state: State
    why: str
    fingerprint: str | None
    before: str | None = None


def plan_steps(config: Config, run: RunDir, names: Sequence[str]) -> list[Step]:
    """What running `names` would do, in order."""
    steps: list[Step] = []
    stale: set[str] = set()
    for name in names:
        stage = STAGES[name]
        missing = [n for n in stage.needs if n in stale or run.entry(n) is None]
        missing += [n for n in stage.uses if n in stale]
        entry = run.entry(name)
        if missing:
            why = f"after {', '.join(missing)}" if entry is None else f"again: {', '.join(missing)} runs first"
            stale.add(name)
            steps.append(Step(name, "waiting", why, None))
            continue
        complete = [n for n in stage.inputs(config) if run.entry(n) is not None]
        digests = {n: run.require(n, "digest") for n in complete}
        try:
            stamp = _stamp(config, name)
        except LdsaugError as e:  # a plan can be made, and a later stage run, where the data is not
            known = (entry or {}).get("stamp")  # what was seen of it when the stage was done
            if entry is not None and (
                known is None or entry["fingerprint"] == stage.fingerprint(config, digests, known)
            ):
                steps.append(Step(name, "complete", "the source cannot be looked at from here", entry["fingerprint"]))
                continue
            stale.add(name)
            steps.append(Step(name, "run", str(e), None))
            continue
        fingerprint = stage.fingerprint(config, digests, stamp)
        gone = 0 if entry is None else entry.get("files", 0) - run.file_count(name)
        why = SAME
        before = stage.fingerprint(config, digests, stamp, later=False)
        if entry["fingerprint"] == before if entry is not None else run.interrupted(name, before):
            if before != fingerprint:
                why = "made by a version for which workers.count and compile did not count; taken as it is"
            fingerprint = before
        if entry is not None and entry["fingerprint"] == fingerprint and gone <= 0:
            steps.append(Step(name, "complete", why, fingerprint))
            continue
        stale.add(name)
        if gone > 0:
            steps.append(Step(name, "run", f"{gone} of its files are gone", fingerprint))
            continue
        if entry is None and run.interrupted(name, fingerprint):
            units = len(run.finished_units(name))
            done = f"{units} units are done" if units else "from its last checkpoint, if any"
            steps.append(Step(name, "continue", f"was interrupted; {done}", fingerprint))
        else:
            why = "not done yet" if entry is None else "settings or input have changed"
            steps.append(Step(name, "run", why, fingerprint, before))
    return steps


def _stamp(config: Config, name: str) -> str:
    """Identity of what a stage reads from outside the run directory."""
    if name == "prepare":
        return domain_of(config).stamp(config.data)
    if name == "evaluate" and config.evaluate.extractor is not None:
        from ldsaug_ray.metrics import evaluation_stamp

        others = config.evaluate.detection.others
        seen = "" if others is None else domain_of(config).stamp(config.data.model_copy(update={"source": others}))
        return f"{evaluation_stamp(config)}{seen}"
    if name == "train" and config.vae.is_pretrained:
        from ldsaug_ray.models import CODECS

        return CODECS.get(config.vae.kind).stamp(config.vae)
    return ""


def run_stages(job: Job, names: Sequence[str], *, finished: Callable[[], None] = lambda: None) -> dict[str, State]:
    """Bring every stage of `names` to completion, in order; says for each whether it was skipped, continued or run.

    Args:
        finished: called after each stage, also after skipped ones.
    """
    happened: dict[str, State] = {}
    _check_current(job, names)
    job.engine.expect([name for name in names if job.run.entry(name) is None])
    for name in names:
        (step,) = plan_steps(job.config, job.run, [name])
        if step.fingerprint is None:  # nothing is missing any more: it is the source
            raise StorageError(step.why)
        happened[name] = step.state
        if step.state == "complete":
            remark = "" if step.why == SAME else f", {step.why}"
            job.console.print(f"{name:<9} already complete{remark}", highlight=False)
        else:
            if step.state == "run" and step.why != "not done yet":
                job.console.print(f"{name:<9} done again: {step.why}", highlight=False)
            module = importlib.import_module(f"ldsaug_ray.stages.{name}")
            if hasattr(module, "check"):
                module.check(job)
            _work(job, name, step.fingerprint, module.run)
        finished()
    return happened


def ensure(job: Job, stage: str, fingerprint: str, function: StageFunction) -> None:
    """Bring what is kept like a stage, in a folder of its own, to completion where it is not."""
    if not job.run.is_complete(stage, fingerprint):
        _work(job, stage, fingerprint, function)


def _work(job: Job, stage: str, fingerprint: str, function: StageFunction) -> None:
    """Begin or go on, do it, and write the manifest's entry."""
    done = job.run.begin(stage, fingerprint)
    started = time.monotonic()
    outcome = function(job, done)
    seconds = time.monotonic() - started
    resumed = sum(u.counts.rows_in for u in done.values())
    processed = outcome.processed if outcome.processed is not None else outcome.counts.rows_in - resumed
    job.run.finish(
        stage,
        fingerprint,
        outcome.counts,
        outcome.digest,
        seconds,
        processed,
        **{"rows_resumed": resumed, **outcome.facts},
    )
    outcome.cleanup()


def _check_current(job: Job, names: Sequence[str]) -> None:
    """What the first of `names` reads must belong to these settings.

    Raises:
        MissingStageError: a stage before them is not complete, or was made with other settings.
    """
    before = {need for name in names for need in STAGES[name].needs} - set(names)
    require_current(job.config, job.run, before, apart_from=names)


def require_current(config: Config, run: RunDir, stages: Collection[str], *, apart_from: Collection[str] = ()) -> None:
    """These stages and all before them must be complete, with these settings; but for those that run now.

    Raises:
        MissingStageError: one is not complete, or was made with other settings.
    """
    before = set(stages)
    for need in sorted(before, key=list(STAGES).index, reverse=True):
        run.require(need)  # the nearest first: that is the one the user left out
    for name in reversed(STAGES):
        if name in before:
            before |= set(STAGES[name].needs) - set(apart_from)
    for step in plan_steps(config, run, [s for s in STAGES if s in before]):
        run.require(step.stage)
        if step.state != "complete":
            raise MissingStageError(
                f"{run.root.uri}: stage {step.stage} is out of date ({step.why}); run `ldsaug {step.stage}` or "
                "`ldsaug run` with these settings first"
            )
