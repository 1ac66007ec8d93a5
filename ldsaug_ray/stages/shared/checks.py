"""What is looked at before work starts: it would be missing after hours of it."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

from ldsaug_ray.config import Config
from ldsaug_ray.domains import Domain, domain_of
from ldsaug_ray.errors import ResourceError
from ldsaug_ray.run.directory import RunDir, facts_of
from ldsaug_ray.stages.shared.runner import plan_steps


def require_faiss() -> None:
    """One of the extras cpu, gpu must be installed; both give the module `faiss`.

    Raises:
        ResourceError: neither is.
    """
    if find_spec("faiss") is None:
        raise ResourceError(
            "FAISS is not installed; run pip install 'ldsaug_ray[cpu]', or 'ldsaug_ray[gpu]' on a machine with a GPU"
        )


def try_networks(config: Config, run: RunDir, names: Collection[str] = ("train", "evaluate")) -> None:
    """Open the user's autoencoder and the extractor now, where the stages `names` will need them: reading images and
    training take hours, and a file that is missing then is missing now.

    Raises:
        ConfigError, InputError, ResourceError: one is unknown, missing or damaged, or does not do its job.
    """
    for step in plan_steps(config, run, [name for name in ("train", "evaluate") if name in names]):
        if step.state == "complete":
            continue
        if step.stage == "evaluate":
            from ldsaug_ray.metrics import own_measures
            from ldsaug_ray.stages.shared.features import opened

            own_measures(config.evaluate.measures)
            opened(config)
        else:
            from ldsaug_ray.models import CODECS

            kind = CODECS.get(config.vae.kind)
            kind.check(config.data)
            learns = type(domain_of(config)).learn is not Domain.learn  # of its items, once they are prepared
            if config.vae.is_pretrained and not (learns and run.entry("prepare") is None):
                kind.take(config.vae, kind.given(config.data, facts_of(run.root)))
