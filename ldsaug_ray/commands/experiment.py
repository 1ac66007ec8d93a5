"""`ldsaug experiment`: arms from one baseline, the plan, and the tables of what came out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rich.table import Table

from ldsaug_ray.common.storage import Location
from ldsaug_ray.engines import engine_of
from ldsaug_ray.errors import LdsaugError
from ldsaug_ray.experiment import Plan, plan_experiment
from ldsaug_ray.experiment.plan import BASELINE
from ldsaug_ray.experiment.run import is_left, run_experiment
from ldsaug_ray.experiment.summary import Summary
from ldsaug_ray.experiment.tables import changes_of, comparisons_of, rows_of
from ldsaug_ray.experiment.words import findings
from ldsaug_ray.run.mlflow_place import view_command
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import make_console, result_console
from ldsaug_ray.stages.shared.checks import require_faiss, try_networks
from ldsaug_ray.stages.shared.job import Job


def experiment_command(
    path: str, overrides: Sequence[str], *, dry_run: bool = False, overwrite: bool = False, verbose: bool = False
) -> int:
    """Run an experiment, or what is left of it; returns the exit code, 1 where an arm failed.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    plan = plan_experiment(path, overrides)
    config = plan.config
    first = plan.runs[0].config
    if dry_run:
        _print_plan(plan, overwrite)
    try_networks(first, open_run_dir(first, overwrite=overwrite, create=False))
    if dry_run:
        return 0
    engine = engine_of(config, verbose=verbose)
    engine.check_place("run_dir", config.run_dir)
    with ExitStack() as held:
        root = open_run_dir(config, overwrite=overwrite, held=held)
        job = Job(config, root, make_console(), engine, alone=True)
        results, summary, failures = run_experiment(job, plan, overwrite=overwrite)
    _print_results(summary)
    for failure in failures:
        print(f"{failure.arm} {failure.cell.name} came to no result: {failure.why}")
    folder = root.folder("experiment")
    print(f"{len(results)} of {len(plan.runs)} runs have results: {(folder / 'index.html').shown}")
    if config.tracking.enabled:
        print(f"MLflow  {view_command()}")
    return 1 if failures else 0


def _print_results(summary: Summary) -> None:
    console = result_console(160)
    for group in summary.groups:
        for title, (head, rows) in (
            (group.title, rows_of(summary, group)),
            ("arm minus its control: mean [95 % bootstrap interval]", comparisons_of(summary, group)),
        ):
            if not rows:
                continue
            table = Table(title=title, title_justify="left")
            for n, name in enumerate(head):
                table.add_column(name, justify="right" if n else "left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
        for sentence in findings(group):
            console.print(sentence)


def _print_plan(plan: Plan, overwrite: bool) -> None:
    """The table of `--dry-run`: arms with what they change, cells with what is done."""
    asked = plan.config.experiment
    arms = Table(title=f"experiment {Location.of(plan.config.run_dir).shown}", title_justify="left")
    for column in ("arm", "compared with", "changes"):
        arms.add_column(column, overflow="fold")
    for name in (BASELINE, *asked.arms):
        text = "no fine-tuning" if name == BASELINE else changes_of(asked.arms[name])
        arms.add_row(name, asked.control_of(name) or "", text)
    console = result_console(150)
    console.print(arms)
    cells = Table(title=f"{len(plan.runs):,} runs", title_justify="left")
    for column in ("training images", "seed", "runs", "done"):
        cells.add_column(column, justify="right")
    for cell in plan.cells:
        runs = plan.of(cell)
        size = f"{plan.config.data.train if cell.train is None else cell.train:,}"
        try:
            done = str(sum(not is_left(run, overwrite) for run in runs))
        except LdsaugError as e:
            done = str(e)
        cells.add_row(size, str(cell.seed), str(len(runs)), done)
    console.print(cells)
