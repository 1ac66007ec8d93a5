"""The densest of all that was added, chunk by chunk in any order: over all candidates, or within groups. In memory are
the kept ones and a chunk or two.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


class Best:
    """The k densest of all that was added, ties by lower id."""

    def __init__(self, k: int, slack: int) -> None:
        self.k, self.slack = k, slack
        self.ids: list[NDArray[np.int64]] = []
        self.scores: list[NDArray[np.float64]] = []
        self.held = 0
        self.worst = -math.inf  # of the k best so far: nothing below it can come back

    def add(self, ids: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        hopeful = scores >= self.worst
        self.ids.append(ids[hopeful])
        self.scores.append(scores[hopeful])
        self.held += len(self.ids[-1])
        if self.held > 2 * self.k + self.slack:
            self.cut()

    def cut(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Forget all but the k best; they come back sorted by id."""
        ids = np.concatenate([*self.ids, np.empty(0, np.int64)])
        scores = np.concatenate([*self.scores, np.empty(0)])
        if self.k == 0:  # fewer to keep than there are alphas
            ids, scores = ids[:0], scores[:0]
        elif len(ids) > self.k:
            self.worst = float(np.partition(scores, len(scores) - self.k)[len(scores) - self.k])
            keep = scores > self.worst
            ties = np.flatnonzero(scores == self.worst)
            lowest = np.argsort(ids[ties], kind="stable")[: self.k - int(keep.sum())]
            keep[ties[lowest]] = True
            ids, scores = ids[keep], scores[keep]
        if not (ids[1:] > ids[:-1]).all():
            order = np.argsort(ids, kind="stable")
            ids, scores = ids[order], scores[order]
        self.ids, self.scores, self.held = [ids], [scores], len(ids)
        return ids, scores


class BestOfGroups:
    """The quotas[g] densest of each group g of all that was added, ties by lower id."""

    def __init__(self, quotas: Index, slack: int) -> None:
        self.quotas = quotas
        self.most = int(1.25 * quotas.sum()) + slack
        self.worst = np.where(quotas > 0, -np.inf, np.inf)  # of a full group: nothing below it can come back
        self.held: list[tuple[Index, NDArray[np.float64], NDArray[np.int32]]] = []
        self.count = 0

    def add(self, ids: Index, scores: NDArray[np.float64], of: Index) -> None:
        """Of these, group numbers int64[m]."""
        hopeful = scores >= self.worst[of]
        self.held.append((ids[hopeful], scores[hopeful], of[hopeful].astype(np.int32)))
        self.count += len(self.held[-1][0])
        if self.count > self.most:
            self.cut()

    def cut(self) -> tuple[Index, NDArray[np.float64]]:
        """Forget all but the best; they come back sorted by group, in a group the densest first."""
        empty = np.empty(0, np.int64), np.empty(0), np.empty(0, np.int32)
        ids, scores, of = (np.concatenate(columns) for columns in zip(*self.held, empty, strict=True))
        self.held.clear()  # memory: the columns are there twice else
        order = np.lexsort((ids, -scores, of))
        ids, scores, of = ids[order], scores[order], of[order]
        counts = np.bincount(of, minlength=len(self.quotas))
        rank = np.arange(len(ids)) - (np.cumsum(counts) - counts)[of]
        keep = rank < self.quotas[of]
        full = np.flatnonzero(keep & (rank == self.quotas[of] - 1))
        self.worst[of[full]] = scores[full]
        self.held, self.count = [(ids[keep], scores[keep], of[keep])], int(keep.sum())
        return self.held[0][:2]


def id_hash(ids: Index | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: spreads neighbouring ids over all 64-bit numbers."""
    x = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
