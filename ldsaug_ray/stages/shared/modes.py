"""Which modes of the training images A has: effective clusters and labels, by its parents, and what balance would keep.

The densest candidates are those of the densest mode, so that A may lose others without a word. A candidate counts for
its parents by nearness; clusters are k-means cells of the training latents. What `select.balance: parent` would keep is
found of the scores at hand: of all candidates, or of `SAMPLED` of them by a hash of the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import Config
from ldsaug_ray.metrics.classes import effective_classes
from ldsaug_ray.run.latents import Latents
from ldsaug_ray.selection.balance import cells, nearer, proportional
from ldsaug_ray.selection.best import BestOfGroups, id_hash

SAMPLED = 200_000
FITTED = 8_192  # latents that k-means looks at
LEAST = 10  # latents of a cluster, in the mean
LOST = 0.9  # of the training images' effective number; below, modes are lost
DENSEST = "the densest candidates are those of the densest modes"
FIRST = "the first by select.rank are of fewer modes"


class Modes:
    """Sees all candidates, part by part, and which of them were kept.

    Args:
        config: the settings.
        latents: of the train split.
        n: candidates.
        ranked_by: column of the density that they are ranked by.
    """

    def __init__(self, config: Config, latents: Latents, n: int, ranked_by: str) -> None:
        self.config, self.latents, self.ranked_by = config, latents, ranked_by
        self.groups: dict[str, np.ndarray] = {}
        k = min(config.select.clusters, len(self.latents) // LEAST)
        if k > 1:
            self.groups["clusters"] = 1 + cells(self.latents.z, k, config.seed, FITTED)
        asked = {*self.latents.categorical, *config.evaluate.attributes}
        for name, labels in zip(self.latents.attribute_names, self.latents.attributes.T, strict=True):
            if name in asked and labels.any():
                self.groups[f"values of {name}"] = labels
        self.kept = np.zeros(len(self.latents))  # weight of each training image in A
        self.below = np.uint64(min(2**64 - 1, 2**64 * SAMPLED // n))
        self.sample: list[tuple[np.ndarray, ...]] = []

    def see(self, table: pa.Table, keep: np.ndarray) -> None:
        """Some candidates, as in `scores/`."""
        ids = table["candidate"].to_numpy()
        taken = id_hash(ids) < self.below
        wanted = np.flatnonzero(keep | taken)
        some = table.take(pa.array(wanted))
        i, j = (self.latents.rows(some[side]) for side in ("parent_i", "parent_j"))
        alpha, score = some["alpha"].to_numpy(), some[self.ranked_by].to_numpy()
        mine = keep[wanted]
        self.kept += self._weights(i[mine], j[mine], alpha[mine])
        mine = taken[wanted]
        self.sample.append((ids[wanted][mine], i[mine], j[mine], alpha[mine], score[mine]))

    def facts(self, n_kept: int, n: int) -> dict[str, Any]:
        """`modes`: clusters or label -> effective numbers: `train`, `a`, and with balance `parent`; and sentences."""
        select = self.config.select
        mendable = select.rule.ranks and select.balance == "none"
        would = self._balanced(n_kept / n) if mendable else None
        modes: dict[str, dict[str, float]] = {}
        for name, of in self.groups.items():
            modes[name] = {"train": _effective(of, np.ones(len(of))), "a": _effective(of, self.kept)}
            if would is not None:
                modes[name]["parent"] = _effective(of, would)
        why = (DENSEST if select.rank == "lds" else FIRST) if mendable else ""
        mend = "select.balance: parent"
        if cuts := [name for name in ("tau", "typical") if getattr(select, name) is not None]:  # not within groups
            mend += f" with select.top_count: {n_kept} in place of select.{cuts[0]}"
        return {"modes": modes, "modes_sentences": [sentence(name, found, why, mend) for name, found in modes.items()]}

    def _balanced(self, share: float) -> np.ndarray:
        """Weight of each training image where this share of the sample is kept, the densest of each nearer parent."""
        ids, i, j, alpha, score = (np.concatenate(columns) for columns in zip(*self.sample, strict=True))
        of = np.where(nearer(ids, alpha, self.config.seed), j, i)
        sizes = np.bincount(of, minlength=len(self.latents))
        best = BestOfGroups(proportional(sizes, max(1, round(share * len(ids))), self.config.seed), 0)
        best.add(ids, score, of)
        kept = np.isin(ids, best.cut()[0])
        return self._weights(i[kept], j[kept], alpha[kept])

    def _weights(self, i: np.ndarray, j: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        weight, n = np.clip(alpha, 0, 1), len(self.latents)
        return np.asarray(np.bincount(i, 1 - weight, n) + np.bincount(j, weight, n), np.float64)


def _effective(of: np.ndarray, weights: np.ndarray) -> float:
    """Of groups by their weights; images without a label (0) do not count, cells begin with 1."""
    known = of != 0
    totals = np.bincount(np.unique(of[known], return_inverse=True)[1].reshape(-1), weights[known])
    return effective_classes(totals / totals.sum()) if totals.sum() else 0.0


def sentence(name: str, found: Mapping[str, float], why: str = DENSEST, mend: str = "select.balance: parent") -> str:
    """How many modes A has, and, where it lost some, why, if that is known, and what would keep them."""
    held = f"A holds {found['a']:.1f} of the training images' {found['train']:.1f} effective {name}"
    if found["a"] >= LOST * found["train"]:
        return f"{held}: none is lost."
    told, parent = f"{held}: {why}." if why else f"{held}.", found.get("parent", 0.0)
    return f"{told} {mend} would hold {parent:.1f}, by these scores." if parent > found["a"] else told
