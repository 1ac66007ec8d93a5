"""An experiment: every arm in every cell, each an ordinary run below `arms/`; tables and a page after each cell.

What an arm shares with the baseline, or with an arm before it, it takes over: images, model, latents, scores, and A
where the selection is the same. Each run goes on where it was interrupted, so the experiment does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.domains import domain_of
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.experiment import (
    ArmRun,
    Cell,
    Failure,
    Plan,
    Result,
    differences_csv,
    markdown,
    read_result,
    results_csv,
    summarise,
)
from ldsaug_ray.experiment.page import experiment_page
from ldsaug_ray.experiment.plan import BASELINE
from ldsaug_ray.experiment.summary import Summary
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.tracked import nothing, tracked_run
from ldsaug_ray.run.tracking import Tracker, allowed_name
from ldsaug_ray.stages.shared.adopt import adopt
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import plan_steps, run_stages

_OF_BASELINE = ("prepare", "train", "encode", "score", "evaluate")
_OF_ARM = tuple(name for name in STAGES if name != "report")


def run_experiment(job: Job, plan: Plan, *, overwrite: bool = False) -> tuple[list[Result], Summary, list[Failure]]:
    """Every arm in every cell that is left; the engine starts where there is any."""
    failures: list[Failure] = []
    with ExitStack() as held:
        tracker = held.enter_context(_Parent(job)) if job.config.tracking.enabled else None
        done = [run for run in plan.runs if not is_left(run, overwrite)]
        if len(done) < len(plan.runs):
            held.enter_context(job.engine)
        for number, cell in enumerate(plan.cells, start=1):
            job.console.print(f"cell {number} of {len(plan.cells)}: {cell.name}", style="bold", highlight=False)
            failures += _run_cell(job, plan, cell, tracker, overwrite)
            now = [run for run in plan.of(cell) if not is_left(run, overwrite)]
            done = [run for run in done if run.cell != cell] + now
            results, summary = _write(job.run, plan, done, failures)
            if tracker is not None:
                tracker.failures = len(failures)
                tracker.tell(summary, job.run)
    return results, summary, failures


def _run_cell(job: Job, plan: Plan, cell: Cell, parent: _Parent | None, overwrite: bool) -> list[Failure]:
    """The baseline, then the arms; where the baseline fails, the cell has nothing else."""
    donors: list[RunDir] = []
    failures = []
    for run in plan.of(cell):
        try:
            donors.append(_run_arm(job, run, donors, parent, overwrite))
        except ImpossibleError as e:  # the other arms go on
            failures.append(Failure(run.arm, cell, str(e)))
            job.console.print(f"{run.arm} {cell.name} comes to no result: {e}", style="red", highlight=False)
            if run.arm == BASELINE:
                break
    return failures


def _run_arm(job: Job, run: ArmRun, donors: Sequence[RunDir], parent: _Parent | None, overwrite: bool) -> RunDir:
    """Take over what there is, do the rest; gives the run directory."""
    names = _names(run)
    with ExitStack() as held:
        folder = open_run_dir(run.config, overwrite=overwrite, held=held)
        inner = replace(job, config=run.config, run=folder)
        adopted = adopt(inner, names, donors)
        left = [s.stage for s in plan_steps(run.config, folder, names) if s.state != "complete"]
        what = f"takes over {', '.join(adopted)}" if adopted else "starts" if left else "already complete"
        job.console.print(f"{run.arm}: {what}", highlight=False)
        send = nothing
        if parent is not None:
            tags = {**parent.child_tags(), "ldsaug.arm": run.arm, "ldsaug.cell": run.cell.name}
            # MLflow has the baseline's stages once
            shared = [n for n in names if donors and (e := folder.entry(n)) and e == donors[0].entry(n)]
            apart = [n for n in names if n not in shared]
            send = held.enter_context(tracked_run(run.config, folder, job.console, apart, tags))
        run_stages(inner, left, finished=send)
    return folder


def is_left(run: ArmRun, overwrite: bool) -> bool:
    """Whether a stage of it is still to be done."""
    folder = open_run_dir(run.config, overwrite=overwrite, create=False)
    return any(step.state != "complete" for step in plan_steps(run.config, folder, _names(run)))


def _names(run: ArmRun) -> tuple[str, ...]:
    return _OF_BASELINE if run.arm == BASELINE else _OF_ARM


class _Parent:
    """The experiment's own MLflow run, to which those of the arms are children."""

    def __init__(self, job: Job):
        self._job = job
        self._tracker = Tracker.start(job.config, job.run, {"ldsaug.experiment": job.run.root.name})
        self._told = False
        self.failures = 0

    def __enter__(self) -> _Parent:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        whole = kind is None and not self.failures
        self._try(lambda: self._tracker.end("FINISHED" if whole else "KILLED" if stopped else "FAILED"))

    def child_tags(self) -> dict[str, str]:
        """Of an arm's run."""
        return self._tracker.child_of()

    def tell(self, summary: Summary, root: RunDir) -> None:
        """Means so far as metrics `ARM/measure`, by training-set size as step, and the files."""
        points = [
            (allowed_name(f"{row.arm}/{measure}"), mean.mean, group.train or 0)
            for group in summary.groups
            for row in group.rows
            for measure, mean in row.means.items()
            if mean is not None
        ]

        def send() -> None:
            self._tracker.log_metrics(points)
            self._tracker.log_files(root.folder("experiment").files(), "experiment")

        self._try(send)

    def _try(self, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as e:
            if not self._told:
                self._job.console.print(
                    f"MLflow does not answer ({first_line(e)}); the experiment goes on", highlight=False
                )
            self._told = True


def _write(
    root: RunDir, plan: Plan, done: Sequence[ArmRun], failures: Sequence[Failure]
) -> tuple[list[Result], Summary]:
    """`experiment/`: every result, tables, page; again after each cell. What other settings gave is left out."""
    done = sorted(done, key=plan.runs.index)
    results = [r for r in map(read_result, done) if r is not None]
    real = [r for run in done if run.arm == BASELINE and (r := read_result(run, "train")) is not None]
    summary = summarise(plan, results, real, failures)
    folder, said = root.folder("experiment"), domain_of(plan.config).words
    files = {
        "results.csv": results_csv([*results, *(replace(r, arm=said(r.arm)) for r in real)]),
        "differences.csv": differences_csv(summary),
        "tables.md": said(markdown(plan, summary)),
    }
    for name, text in {**files, "index.html": experiment_page(plan, summary, results, root.root.name, files)}.items():
        (folder / name).write_bytes(text.encode())
    return results, summary
