"""What all tests share: where the real data is, and MLflow and Ray kept quiet and local."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from markers import needs_ray

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


@pytest.fixture(autouse=True)
def _without_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without a marker starts no Ray and waits for no clock."""
    if needs_ray(request.node):
        return
    assert "ray_local" not in request.fixturenames, "a test with ray_local is marked ray"
    for place in ("ray.init", "time.sleep"):
        monkeypatch.setattr(place, partial(_refused, place))


def _refused(place: str, *_: object, **__: object) -> None:
    raise AssertionError(f"{place} in a test that is not marked ray or cluster")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray with two CPUs for all tests that are marked so."""
    from ldsaug_ray.config import Config
    from ldsaug_ray.engines.ray.session import ray_session

    config = Config.model_validate(
        {"run_dir": "unused", "data": {"source": "sklearn:digits"}, "ray": {"num_cpus": 2, "object_store_gb": 0.5}}
    )
    with ray_session(config):
        yield
