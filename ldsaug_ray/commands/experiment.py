"""`ldsaug experiment`: arms from one baseline, the plan, and the tables of what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ldsaug_ray.api.runs import opened
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains import domain_of
from ldsaug_ray.errors import LdsaugError
from ldsaug_ray.experiment import Plan, plan_experiment
from ldsaug_ray.experiment.plan import BASELINE
from ldsaug_ray.experiment.run import is_left, run_experiment
from ldsaug_ray.experiment.summary import Summary
from ldsaug_ray.experiment.tables import changes_of, comparisons_of, rows_of
from ldsaug_ray.experiment.words import findings
from ldsaug_ray.run.mlflow_place import view_command
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import print_table
from ldsaug_ray.stages.shared.checks import require_faiss, try_networks


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
    with opened(config, overwrite=overwrite, verbose=verbose) as job:
        results, summary, failures = run_experiment(job, plan, overwrite=overwrite)
    _print_results(summary, domain_of(config).words)
    for failure in failures:
        print(f"{failure.arm} {failure.cell.name} came to no result: {failure.why}")
    folder = job.run.folder("experiment")
    print(f"{len(results)} of {len(plan.runs)} runs have results: {(folder / 'index.html').shown}")
    if config.tracking.enabled:
        print(f"MLflow  {view_command()}")
    return 1 if failures else 0


def _print_results(summary: Summary, said: Callable[[str], str]) -> None:
    for group in summary.groups:
        for title, (head, rows) in (
            (group.title, rows_of(summary, group)),
            ("arm minus its control: mean [95 % bootstrap interval]", comparisons_of(summary, group)),
        ):
            if rows:  # a row a measure: of those there are more than arms
                arms, *measures = zip(head, *rows, strict=True)
                print_table(
                    said(title), [said(arm) for arm in arms], [[said(cell) for cell in row] for row in measures], 160
                )
        for sentence in findings(group):
            print(said(sentence))


def _print_plan(plan: Plan, overwrite: bool) -> None:
    """The table of `--dry-run`: arms with what they change, cells with what is done."""
    asked = plan.config.experiment
    arms = [(BASELINE, "no fine-tuning"), *((name, changes_of(arm)) for name, arm in asked.arms.items())]
    rows = [(name, asked.control_of(name) or "", text) for name, text in arms]
    title = f"experiment {Location.of(plan.config.run_dir).shown}"
    print_table(title, ("arm", "compared with", "changes"), rows, 150, "f")
    cells = []
    for cell in plan.cells:
        runs = plan.of(cell)
        size = f"{plan.config.data.train if cell.train is None else cell.train:,}"
        try:
            done = str(sum(not is_left(run, overwrite) for run in runs))
        except LdsaugError as e:
            done = str(e)
        cells.append((size, str(cell.seed), str(len(runs)), done))
    size = domain_of(plan.config).words("training images")
    print_table(f"{len(plan.runs):,} runs", (size, "seed", "runs", "done"), cells, 150, "r")
