"""Features that were computed once, in the user's cache: known by the content of their images and by the extractor.

A file is an uncompressed `.npz`, whose checksums are looked at and in which nothing is unpickled. Any may be deleted.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.metrics.weights import weights_folder

Arrays = Mapping[str, NDArray[Any]]


def features_folder() -> Path:
    """Where they are kept: beside the weights, in LDSAUG_CACHE or XDG_CACHE_HOME."""
    return weights_folder() / "features"


def kept(key: str, compute: Callable[[], Arrays], tell: Callable[[str], None]) -> Arrays:
    """The arrays that are kept under a key, else computed, and kept.

    Args:
        key: of letters and digits: a digest of all that the arrays depend on.
        compute: gives them, none of them of objects.
        tell: is told where a file is damaged and computed anew, or cannot be written. Neither is an error.
    """
    path = features_folder() / f"{key}.npz"
    try:
        with zipfile.ZipFile(path) as packed:  # NumPy by itself reads past the checksums
            if damaged := packed.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, NotADirectoryError):
        pass
    except MemoryError:
        raise
    except Exception as e:  # damaged bytes raise nearly anything
        tell(f"{path} is damaged ({e}); its features are computed anew")
    arrays = compute()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as f:
            np.savez(f, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    except OSError as e:
        tell(f"features are not kept: {path} cannot be written ({e.strerror or e})")
    finally:
        if partial.exists():
            partial.unlink()
    return arrays
