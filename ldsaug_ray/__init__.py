"""ldsaug_ray: augment generative-model training sets by latent density (LDS), on Ray.

docs/design.md draws the rooms of this package; only `engines/ray` imports Ray. The version lives in `pyproject.toml`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ldsaug_ray")
except PackageNotFoundError:  # a source tree that was never installed, as on a worker given only --working-dir
    __version__ = "0+unknown"
