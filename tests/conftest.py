"""What all tests share: where the real data is, and MLflow and Ray kept quiet and local."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):  # a developer's own cluster and server are not for tests
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real faces and models; the test is skipped where there is none."""
    folder = Path(os.environ.get("LDSAUG_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is absent (LDSAUG_SHARED names another place)")
    return folder
