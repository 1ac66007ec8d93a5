"""Where the work of a stage is done: in this process, or on a Ray cluster. Stages ask an `Engine` and know no more.

Both engines leave the same files with the same digests, so that a stage can be tried, tested and debugged without Ray.
"""

import os
from importlib import import_module

from ldsaug_ray.config import Config
from ldsaug_ray.engines.base import Engine

_ENGINES = {"inline": "ldsaug_ray.engines.inline:InlineEngine", "ray": "ldsaug_ray.engines.ray:RayEngine"}


def engine_of(config: Config, *, verbose: bool = False) -> Engine:
    """The engine that the setting `engine` names. Nothing starts before it is entered.

    verbose: show the engine's own messages.
    """
    # Threads that wait for each other spin a moment, then sleep. Endless spinning is many times slower on busy cores;
    # sleeping at once (OMP_WAIT_POLICY=PASSIVE) costs a third of the training's speed on idle ones. Read with torch.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    module, _, name = _ENGINES[config.engine].partition(":")
    engine: Engine = getattr(import_module(module), name)(config, verbose)
    return engine
