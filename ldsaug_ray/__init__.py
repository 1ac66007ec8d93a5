"""ldsaug_ray: augment generative-model training sets by latent density (LDS), on Ray.

    import ldsaug_ray as la

The names below are the Python face, and each is imported when it is asked for: docs/python.md shows them.
docs/design.md draws the rooms of this package; only `engines/ray` imports Ray. The version lives in `pyproject.toml`.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ldsaug_ray.common.lazy import lazily

try:
    __version__ = version("ldsaug_ray")
except PackageNotFoundError:  # a source tree that was never installed, as on a worker given only --working-dir
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from ldsaug_ray.api.augment import Augmented, augment
    from ldsaug_ray.api.batches import Decode, Encode, Score
    from ldsaug_ray.api.density import LatentDensity
    from ldsaug_ray.api.measure import measure
    from ldsaug_ray.api.runs import RunTables, load_run, run
    from ldsaug_ray.api.sampler import LatentSampler
    from ldsaug_ray.config.tree import Config
else:
    __getattr__ = lazily(__name__, __file__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # completion knows the names before they are loaded


__all__ = [
    "Augmented",
    "Config",
    "Decode",
    "Encode",
    "LatentDensity",
    "LatentSampler",
    "RunTables",
    "Score",
    "augment",
    "load_run",
    "measure",
    "run",
]


class _CallableRoom(ModuleType):
    """The function `run` has the name of a room, which Python puts in its place: so the room can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from ldsaug_ray.api.runs import run

        return run(*args, **kwargs)


import_module("ldsaug_ray.run").__class__ = _CallableRoom
