"""Section `tracking`: MLflow."""

from __future__ import annotations

from pydantic import Field

from ldsaug_ray.config.base import Section


class Tracking(Section):
    """MLflow. MLFLOW_TRACKING_URI, where set, wins over the default SQLite file in the working folder."""

    enabled: bool = Field(True, description="keep the run in MLflow")
    experiment: str = Field("ldsaug", description="MLflow experiment")
    run_name: str | None = Field(None, description="MLflow run name; none: the run directory's name")
