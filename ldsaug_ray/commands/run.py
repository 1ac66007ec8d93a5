"""`ldsaug run` and each stage: open the run directory, enter the engine, run the stages, keep MLflow honest, sum up."""

from __future__ import annotations

from contextlib import nullcontext

from ldsaug_ray.commands.opening import opened
from ldsaug_ray.commands.plan import print_plan
from ldsaug_ray.commands.summary import print_measures, print_summary
from ldsaug_ray.config import Config
from ldsaug_ray.run.mlflow_place import view_command
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.tracked import nothing, tracked_run
from ldsaug_ray.stages.shared.checks import require_faiss, try_networks
from ldsaug_ray.stages.shared.runner import plan_steps, run_stages


def stages_of(command: str, config: Config) -> list[str]:
    """Stages that a command runs. `train` reads the images first; it is the first stage that needs them."""
    if command == "run":
        return [name for name in STAGES if name != "evaluate" or config.evaluate.extractor is not None]
    return ["prepare", "train"] if command == "train" else [command]


def run_command(
    config: Config, command: str, *, dry_run: bool = False, overwrite: bool = False, verbose: bool = False
) -> int:
    """Run a stage or all of them; prints a summary table to standard output. Returns the exit code.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    names = stages_of(command, config)
    before = open_run_dir(config, overwrite=overwrite, create=False)
    if dry_run:
        print_plan(config, before, names)
    try_networks(config, before, names)
    if dry_run:
        return 0
    tracked = config.tracking.enabled and command == "run"
    with opened(config, overwrite=overwrite, verbose=verbose) as job:
        run = job.run
        with tracked_run(config, run, job.console, names) if tracked else nullcontext(nothing) as send:
            left = [s.stage for s in plan_steps(config, run, names) if s.state != "complete"]
            alone = all(STAGES[name].on_driver for name in left)
            with nullcontext() if alone else job.engine:
                happened = run_stages(job, names, finished=send)
    print_summary(run, names, happened)
    if "evaluate" in names:
        from ldsaug_ray.metrics import Evaluated

        print_measures(Evaluated.from_json(run.require("evaluate")))
    if "report" in names:
        print(f"report  {(run.folder('report') / 'index.html').shown}")
    if tracked:
        print(f"MLflow  {view_command()}")
    return 0
