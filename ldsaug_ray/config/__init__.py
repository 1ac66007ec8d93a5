"""Settings of a run: the validated tree and the reading of YAML files and `key=value` overrides."""

from ldsaug_ray.config.load import describe, load_config
from ldsaug_ray.config.settings import (
    Config,
    Data,
    Finetune,
    Objective,
    Optimisation,
    Report,
    Score,
    Select,
    Sigma,
    Train,
    Vae,
    Workers,
)

__all__ = [
    "Config",
    "Data",
    "Finetune",
    "Objective",
    "Optimisation",
    "Report",
    "Score",
    "Select",
    "Sigma",
    "Train",
    "Vae",
    "Workers",
    "describe",
    "load_config",
]
