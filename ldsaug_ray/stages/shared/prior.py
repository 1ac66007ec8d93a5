"""Priors as stages use them: fitted once and kept in a folder, so that a resumed command draws from the same on any
machine, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from ldsaug_ray.common.columns import matrix
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Sampling
from ldsaug_ray.errors import ImpossibleError, failing
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents

if TYPE_CHECKING:
    from ldsaug_ray.models.priors import Draws

Given = Callable[[], tuple[np.ndarray, dict[str, int]]]  # latents float32[N + M, d], the last M of A; and N and M


def kept_prior(
    folder: Location, name: str, settings: Sampling, seed: int, dim: int, latents: Given, console: Console
) -> tuple[Draws, dict[str, Any]]:
    """The prior of that name as the folder has it; fitted first, and put there, where it has none. And its facts.

    Raises:
        InputError: latents that it cannot be fitted to, or a file there that is damaged.
    """
    from ldsaug_ray.models.priors import PRIORS, Draws, facts_of, read_fitted, write_fitted

    prior, none = PRIORS.get(name), np.empty((0, dim), np.float32)
    facts, arrays = (folder / f"prior.{kind}" for kind in ("json", "safetensors"))
    counted: dict[str, int] = {}
    z = none
    if prior.reads == "drawn" or (prior.reads == "fitted" and not facts.exists()):
        z, counted = latents()
    if prior.reads == "nothing" or not facts.exists():
        shown = console.status(f"fitting the {name}") if console.is_terminal else nullcontext()
        with shown, failing(f"sample.prior {name}"):
            fitted = prior.fit(z, settings, seed, of_a=counted.get("augmented", 0))
        noted = {**counted, **facts_of(fitted)}
        if remark := prior.remark(noted):
            console.print(f"{folder.path.rsplit('/', 1)[-1]:<9} {remark}", highlight=False)
        write_fitted(arrays, fitted)
        if noted:
            facts.write_json(noted)
    noted = facts.read_json() if facts.exists() else {}
    draws = Draws(name, read_fitted(arrays, noted), z if prior.reads == "drawn" else none)
    draws.check(seed)
    return draws, noted


@dataclass(frozen=True)
class Judged:
    """Latents whose pictures a discriminator judges, as many as training images: read where they are drawn, not sent.

    Attributes:
        root: the run directory.
        prior: a registered one, which finetune/ holds, or "a": A's latents, all alike.
        seed: draw k depends on it and k alone.
        settings: section `sample`.
        dim: of the latents.
    """

    root: Location
    prior: str
    seed: int
    settings: Sampling
    dim: int

    def draws(self, console: Console | None = None) -> Draws:
        """What to draw from; fitted, and kept in finetune/, where it is not there yet.

        Raises:
            ImpossibleError: A is empty.
            InputError: latents that it cannot be fitted to.
        """
        from ldsaug_ray.models.priors import Draws

        if self.prior == "a":
            parts = [f.read_table(["z"]) for f in (self.root / "augmented").files(".parquet")]
            if not sum(map(len, parts)):
                raise ImpossibleError("finetune.judge = a, but no candidate was kept; name a prior such as kde")
            return Draws("kde", {"sigma": 0.0}, matrix(pa.concat_tables(parts)["z"]))
        quiet = console or Console(quiet=True)
        folder = self.root / "finetune"
        draws, _ = kept_prior(folder, self.prior, self.settings, self.seed, self.dim, self._latents, quiet)
        return draws

    def _latents(self) -> tuple[np.ndarray, dict[str, int]]:
        z = read_latents(RunDir(self.root), "train").z
        return z, {"latents": len(z), "augmented": 0}
