"""What is looked at before work starts: it would be missing after hours of it."""

from __future__ import annotations

from importlib.util import find_spec

from ldsaug_ray.config import Config
from ldsaug_ray.errors import ResourceError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages.runner import plan_steps


def require_faiss() -> None:
    """One of the extras cpu, gpu must be installed; both give the module `faiss`.

    Raises:
        ResourceError: neither is.
    """
    if find_spec("faiss") is None:
        raise ResourceError(
            "FAISS is not installed; run pip install 'ldsaug_ray[cpu]', or 'ldsaug_ray[gpu]' on a machine with a GPU"
        )


def try_extractor(config: Config, run: RunDir) -> None:
    """Open it now, where it will be needed: training takes hours, and a file that is missing then is missing now.

    Raises:
        ConfigError: it is unknown, or a measure of the user's own is not to be found.
        InputError: its weights are missing or damaged, or it does not do its job.
    """
    (step,) = plan_steps(config, run, ["evaluate"])
    if step.state != "complete":
        from ldsaug_ray.metrics import own_measures
        from ldsaug_ray.stages.features import opened

        own_measures(config.evaluate.measures)
        opened(config)
