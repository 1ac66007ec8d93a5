"""Experiments: arms that start from one baseline, over seeds and training-set sizes. No Ray.

plan = plan_experiment("configs/experiments/paper.yaml", ["experiment.seeds=[0]"])
results = [result for run in plan.runs if (result := read_result(run)) is not None]
text = markdown(plan, summarise(plan, results))
"""

from ldsaug_ray.experiment.document import markdown
from ldsaug_ray.experiment.plan import ArmRun, Cell, Plan, plan_experiment
from ldsaug_ray.experiment.results import REAL, Result, read_result
from ldsaug_ray.experiment.summary import Comparison, Failure, Group, Row, Summary, summarise
from ldsaug_ray.experiment.tables import differences_csv, results_csv
