"""`lds`: the paper's rule, what the thresholds keep."""

from ldsaug_ray.selection.rule import RULES, Rule

RULES.add("lds", Rule())
