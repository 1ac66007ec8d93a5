"""`ldsaug run` and each stage: the plan, where only that is asked for, else the stages and what came out."""

from __future__ import annotations

from ldsaug_ray.api.runs import perform, stages_of
from ldsaug_ray.commands.plan import print_plan
from ldsaug_ray.commands.summary import print_measures, print_summary, words_of
from ldsaug_ray.config import Config
from ldsaug_ray.run.mlflow_place import view_command
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.stages.shared.checks import require_faiss, try_networks


def run_command(
    config: Config, command: str, *, dry_run: bool = False, overwrite: bool = False, verbose: bool = False
) -> int:
    """Run a stage or all of them; prints a summary table to standard output. Returns the exit code.

    Raises:
        LdsaugError: the message says what to do.
    """
    names = stages_of(command, config)
    if dry_run:
        require_faiss()
        before = open_run_dir(config, overwrite=overwrite, create=False)
        print_plan(config, before, names)
        try_networks(config, before, names)
        return 0
    tracked = config.tracking.enabled and command == "run"
    run, happened = perform(config, names, overwrite=overwrite, verbose=verbose, tracked=tracked)
    print_summary(run, names, happened)
    if "evaluate" in names:
        from ldsaug_ray.metrics import Evaluated

        print_measures(Evaluated.from_json(run.require("evaluate")), words_of(run))
    if "report" in names:
        print(f"report  {(run.folder('report') / 'index.html').shown}")
    if tracked:
        print(f"MLflow  {view_command()}")
    return 0
