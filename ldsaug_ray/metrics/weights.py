"""Weights of feature networks: kept in the user's cache, believed only with the right SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

from ldsaug_ray.errors import InputError


def weights_folder() -> Path:
    """LDSAUG_CACHE, or `ldsaug_ray` in the user's cache folder."""
    cache = os.environ.get("LDSAUG_CACHE")
    if cache:
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ldsaug_ray"


@dataclass(frozen=True)
class Weights:
    """A file of weights, its SHA-256 (hex), and where it can be had."""

    name: str
    sha256: str
    url: str

    @property
    def path(self) -> Path:
        """Where it belongs."""
        return weights_folder() / self.name

    def problem(self, path: Path | None = None) -> str | None:
        """Why the file (by custom the one in the cache) cannot be used, or None."""
        path = path or self.path
        if not path.is_file():
            return f"not at {path}"
        try:
            with path.open("rb") as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as e:
            return f"{path} cannot be read ({e.strerror or e})"
        return None if found == self.sha256 else f"{path} is damaged or another file (SHA-256 {found[:12]}…)"

    def ready(self) -> Path:
        """The verified file in the cache, downloaded where it is not there yet.

        It is written under a name of its own and renamed when its SHA-256 is right: processes that start together may
        each download it, and none reads a part of it.

        Raises:
            InputError: the file there is another one, or it cannot be downloaded or written; the message says where to
                put it and where it can be had.
        """
        problem = self.problem()
        if problem is None:
            return self.path
        by_hand = f"put {self.url} at {self.path} (LDSAUG_CACHE names another folder)"
        if self.path.exists():
            raise InputError(f"{problem}; delete it and run again, or {by_hand}")
        partial = self.path.with_name(f".{self.name}.{uuid.uuid4().hex}")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self.url, timeout=60) as response, partial.open("wb") as f:
                shutil.copyfileobj(response, f)
            if problem := self.problem(partial):
                raise InputError(f"what {self.url} gave is damaged or another file ({problem}); {by_hand}")
            os.replace(partial, self.path)
        except (OSError, http.client.HTTPException) as e:  # URLError is an OSError
            reason = e.reason if isinstance(e, urllib.error.URLError) else e
            raise InputError(f"{self.name} could not be downloaded ({reason}); {by_hand}") from None
        finally:
            partial.unlink(missing_ok=True)
        return self.path


INCEPTION = Weights(
    "inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
)
"""The TorchScript Inception of StyleGAN's metrics and clean-fid."""
