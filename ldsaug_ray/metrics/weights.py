"""Weights of feature networks: kept in the user's cache, believed only with the right SHA-256."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


def weights_folder() -> Path:
    """LDSAUG_CACHE, or `ldsaug_ray` in the user's cache folder."""
    cache = os.environ.get("LDSAUG_CACHE")
    if cache:
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ldsaug_ray"


@dataclass(frozen=True)
class Weights:
    """A file of weights and its SHA-256 (hex)."""

    name: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it belongs."""
        return weights_folder() / self.name

    def problem(self) -> str | None:
        """Why it cannot be used, or None."""
        if not self.path.is_file():
            return f"not at {self.path}"
        with self.path.open("rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        return None if found == self.sha256 else f"{self.path} is damaged or another file (SHA-256 {found[:12]}…)"


INCEPTION = Weights("inception-2015-12-05.pt", "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4")
"""The TorchScript Inception of StyleGAN's metrics and clean-fid."""
