"""Which candidates are kept: exact over all of them, in one pass, in memory for the kept ones and a chunk.

Candidates are ranked by log score, ties by lower id, so the answer depends neither on how the scores are cut into
chunks nor on the order the chunks come in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config.settings import Select
from ldsaug_ray.errors import InputError, NothingSelectedError

SAMPLE = 262_144  # scores kept for the quantiles of an empty selection; more candidates are sampled
LEVELS = (0.5, 0.8, 0.9, 0.99)
SLACK = 65_536  # candidates the buffer may grow by before it is cut back


@dataclass(frozen=True)
class Selection:
    """The kept candidates and why."""

    ids: NDArray[np.int64]  # [K] ascending
    threshold_log: float  # lowest log score that was kept
    n_candidates: int  # how many there were
    rules: dict[str, int] = field(default_factory=dict)  # each rule that was given: how many it alone would keep
    binding: str = ""  # the rule that keeps fewest, so decides


def select(
    chunks: Iterable[tuple[NDArray[np.int64], NDArray[np.float64]]], n_total: int, settings: Select
) -> Selection:
    """Keep the candidates that pass every rule given (spec section 1, "selection").

    chunks: (candidate ids int64[m], log scores float64[m]), together all `n_total` candidates in any order; the score
    is log LDS, or that without parents where `settings.exclude_parents`: the caller passes the one that is meant.
    tau keeps log score > log tau, strictly; top_fraction the densest max(1, floor(f n_total + 1/2)) of all candidates,
    top_count that many (or all). Raises NothingSelectedError with usable thresholds when none is left, InputError for
    NaN scores, repeated ids, or a count other than `n_total`.
    """
    if n_total < 1:
        raise InputError("there are no candidates to select from")
    limits = _limits(n_total, settings)
    floor = -math.inf if settings.tau is None else math.log(settings.tau)
    best = _Best(min(limits.values(), default=n_total))
    sample = _Sample(n_total)
    seen = above = 0
    for ids, scores in chunks:
        ids, scores = _checked(ids, scores)
        seen += len(ids)
        if settings.tau is not None:
            sample.add(ids, scores)
            passing = scores > floor
            above += int(passing.sum())
            ids, scores = ids[passing], scores[passing]
        best.add(ids, scores)
    if seen != n_total:
        raise InputError(f"{n_total} candidates were announced but {seen} scores came; score again")
    if settings.tau is not None and above == 0:
        raise NothingSelectedError(_nothing(settings.tau, sample, n_total))
    ids, scores = best.cut()
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise InputError(f"candidate {repeated[0]} was scored more than once; score again")
    rules = {} if settings.tau is None else {"tau": above}
    rules |= limits
    return Selection(ids, float(scores.min()), n_total, rules, min(rules, key=lambda name: rules[name]))


def _limits(n_total: int, settings: Select) -> dict[str, int]:
    limits = {}
    if settings.top_fraction is not None:
        limits["top_fraction"] = min(n_total, max(1, math.floor(settings.top_fraction * n_total + 0.5)))
    if settings.top_count is not None:
        limits["top_count"] = min(n_total, settings.top_count)
    return limits


def _checked(ids: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    ids, scores = np.asarray(ids, np.int64), np.asarray(scores, np.float64)
    if ids.ndim != 1 or ids.shape != scores.shape:
        raise InputError(f"a chunk needs as many ids as scores; found shapes {ids.shape} and {scores.shape}")
    bad = np.isnan(scores)
    if bad.any():
        raise InputError(f"the score of candidate {ids[np.argmax(bad)]} is NaN ({int(bad.sum())} such); score again")
    return ids, scores


class _Best:
    """The k densest of all that was added, ties by lower id."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.ids: list[NDArray[np.int64]] = []
        self.scores: list[NDArray[np.float64]] = []
        self.held = 0
        self.worst = -math.inf  # of the k best so far: nothing below it can come back

    def add(self, ids: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        hopeful = scores >= self.worst
        self.ids.append(ids[hopeful])
        self.scores.append(scores[hopeful])
        self.held += len(self.ids[-1])
        if self.held > 2 * self.k + SLACK:
            self.cut()

    def cut(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Forget all but the k best; they come back sorted by id."""
        ids = np.concatenate([*self.ids, np.empty(0, np.int64)])
        scores = np.concatenate([*self.scores, np.empty(0)])
        if len(ids) > self.k:
            self.worst = float(np.partition(scores, len(scores) - self.k)[len(scores) - self.k])
            keep = scores > self.worst
            ties = np.flatnonzero(scores == self.worst)
            lowest = np.argsort(ids[ties], kind="stable")[: self.k - int(keep.sum())]
            keep[ties[lowest]] = True
            ids, scores = ids[keep], scores[keep]
        order = np.argsort(ids, kind="stable")
        ids, scores = ids[order], scores[order]
        self.ids, self.scores, self.held = [ids], [scores], len(ids)
        return ids, scores


class _Sample:
    """Scores to take quantiles of: all of them, or about SAMPLE chosen by a hash of the id (never by order)."""

    def __init__(self, n_total: int) -> None:
        self.exact = n_total <= SAMPLE
        self.below = np.uint64(min(2**64 - 1, 2**64 * SAMPLE // n_total))
        self.scores: list[NDArray[np.float64]] = []
        self.largest = -math.inf

    def add(self, ids: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        self.largest = max(self.largest, float(scores.max(initial=-math.inf)))
        self.scores.append(scores if self.exact else scores[_hash(ids) < self.below])

    def quantiles(self) -> list[float]:
        """Actual scores, not between two, at LEVELS."""
        scores = np.sort(np.concatenate(self.scores))
        return [float(scores[int(level * (len(scores) - 1))]) for level in LEVELS] if len(scores) else []


def _hash(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: spreads neighbouring ids over all 64-bit numbers."""
    x = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _nothing(tau: float, sample: _Sample, n_total: int) -> str:
    about = "" if sample.exact else f" (approximate: from a sample of {sum(map(len, sample.scores))})"
    lines = [
        f"select.tau = {tau:g} keeps none of {n_total} candidates: the largest LDS is {_lds(sample.largest)}.",
        f"Values that select.tau could take{about}:",
    ]
    for level, value in zip(LEVELS, sample.quantiles(), strict=False):
        lines.append(f"  {_lds(value)} keeps about the densest {1 - level:.0%} ({level:.0%} quantile)")
    lines.append(f"  less than {_lds(sample.largest)} keeps at least one (the maximum)")
    lines.append("Set one of them, or drop select.tau and use select.top_fraction or select.top_count.")
    return "\n".join(lines)


def _lds(log_value: float) -> str:
    value = math.exp(log_value)
    if value < 1e-300:
        return f"LDS below 1e-300, too small for a tau (log LDS {log_value:.6g})"
    return f"{value:.6g} (log LDS {log_value:.6g})"
