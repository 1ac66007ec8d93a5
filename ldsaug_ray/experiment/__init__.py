"""Experiments: arms that start from one baseline, over seeds and training-set sizes. No Ray.

plan = plan_experiment("configs/experiments/paper.yaml", ["experiment.seeds=[0]"])
results = [read_result(run) for run in plan.runs]
text = markdown(summarise(plan.config, results))
"""

from ldsaug_ray.experiment.plan import ArmRun, Cell, Plan, plan_experiment
from ldsaug_ray.experiment.results import Result, read_result
from ldsaug_ray.experiment.summary import Comparison, Group, Row, Summary, summarise
from ldsaug_ray.experiment.tables import markdown, results_csv

__all__ = [
    "ArmRun",
    "Cell",
    "Comparison",
    "Group",
    "Plan",
    "Result",
    "Row",
    "Summary",
    "markdown",
    "plan_experiment",
    "read_result",
    "results_csv",
    "summarise",
]
