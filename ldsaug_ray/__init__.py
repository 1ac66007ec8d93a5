"""ldsaug_ray: augment generative-model training sets by latent density (LDS), on Ray.

The pure core (`config`, `images`, `vae`, `lds`, `report`) works on arrays and files and never imports Ray;
`stages` is the Ray layer. The version lives in `pyproject.toml` alone.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ldsaug_ray")
except PackageNotFoundError:  # a source tree that was never installed, as on a worker given only --working-dir
    __version__ = "0+unknown"
