"""Which candidates are kept: exact over all of them, in one pass, in memory for the kept ones and a chunk.

Candidates are ranked by log score, ties by lower id, so the answer depends neither on how the scores are cut into
chunks nor on the order the chunks come in.

Two rules compare with held-out real latents by split conformal prediction (Vovk et al. 2005). Of n held-out log scores
in ascending order the k-th is a bound below which a new real latent falls with probability at most k / (n + 1), since
its rank among them is uniform. That is a guarantee for latents of *real* images alone: interpolants are other things,
and usually denser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Select
from ldsaug_ray.errors import ImpossibleError, InputError, NothingSelectedError
from ldsaug_ray.selection.balance import even, proportional
from ldsaug_ray.selection.best import Best, BestOfGroups, id_hash

Bounds = tuple[float, float]  # least and largest log score, both inclusive

SAMPLE = 262_144  # scores kept for the quantiles of an empty selection; more candidates are sampled
LEVELS = (0.5, 0.8, 0.9, 0.99)
SLACK = 65_536  # candidates the buffers may grow by before they are cut back


@dataclass(frozen=True)
class Selection:
    """The kept candidates and why."""

    ids: NDArray[np.int64]  # [K] ascending
    threshold_log: float | None  # lowest log score that was kept; none: no threshold was applied
    n_candidates: int  # how many there were
    rules: dict[str, int] = field(default_factory=dict)  # each rule that was given: how many it alone would keep
    binding: str | None = None  # the rule that alone keeps fewest
    auto_log: float | None = None  # log tau, where tau is auto
    typical_log: Bounds | None = None  # the band, where typical is given
    groups: int | None = None  # of balance, that have a place
    note: str = ""  # on groups with too few candidates


def select(
    chunks: Iterable[tuple[NDArray[Any], ...]],
    n_total: int,
    settings: Select,
    *,
    n_alphas: int = 1,
    held_out: NDArray[np.float64] | None = None,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Selection:
    """Keep the candidates that pass every rule given: thresholds of LDS, shares of the densest, or both.

    chunks: (candidate ids int64[m], log scores float64[m]), together all `n_total` candidates in any order; the score
    is log LDS, or that without parents where `settings.exclude_parents`: the caller passes the one that is meant.
    n_alphas: candidate c has the alpha number c % n_alphas; used by stratify alone. held_out: log LDS of real latents
    that the density was not made of, float64[n]; used by tau: auto and typical. groups: with balance, the candidates of
    each group, `balance.counted` by group and stratum; chunks then have the group numbers, int64[m], third. seed: of
    balance.

    tau keeps log score > log tau, strictly; tau: auto log score >= `conformal_bound`; typical what lies within
    `conformal_band`, ends included; top_fraction the densest max(1, floor(f n + 1/2)) of all n candidates, top_count
    that many (or all), whatever the other rules keep. With stratify n counts the candidates of one alpha, and
    top_count is split evenly, the lowest alphas taking what is left over. With groups they hold within each (and within
    each of its alphas): top_fraction by `balance.proportional`, top_count by `balance.even`. Raises
    NothingSelectedError with usable numbers when none is left, InputError for NaN scores, repeated ids, a count other
    than `n_total`, or too few held-out latents.
    """
    if n_total < 1:
        raise InputError("there are no candidates to select from")
    strata = n_alphas if settings.stratify else 1
    sizes = [len(range(a, n_total, strata)) for a in range(strata)]
    limits = _limits(sizes, settings) if groups is None else _quotas(groups, settings, seed)
    bounds = _bounds(settings, held_out)
    low = max((least for least, _ in bounds.values()), default=-math.inf)
    high = min((most for _, most in bounds.values()), default=math.inf)
    quotas = None if groups is None else np.min([*limits.values()], axis=0)
    of_groups = None if quotas is None else BestOfGroups(quotas, SLACK)
    each_alpha = zip(*limits.values(), strict=True) if of_groups is None else ()
    best = [Best(min(each), SLACK // strata) for each in each_alpha] or [Best(n_total, SLACK)]
    sample = _Sample(n_total)
    alone, seen, above_band = dict.fromkeys(bounds, 0), np.zeros(strata, np.int64), 0
    for chunk in chunks:
        ids, scores = _checked(*chunk[:2])
        of = chunk[2] * strata + ids % strata if groups is not None else ids
        seen += np.bincount(ids % strata, minlength=strata)
        for rule, (least, most) in bounds.items():
            alone[rule] += int(((scores >= least) & (scores <= most)).sum())
        if bounds:
            sample.add(ids, scores)
            above_band += int((scores > high).sum())
            hopeful = scores >= low  # what is too dense for the band takes its place in the ranking all the same
            if not limits:
                hopeful &= scores <= high
            ids, scores, of = ids[hopeful], scores[hopeful], of[hopeful]
        if of_groups is not None:
            of_groups.add(ids, scores, of)
        for a, of_alpha in enumerate(best if of_groups is None else ()):
            mine = slice(None) if strata == 1 else ids % strata == a
            of_alpha.add(ids[mine], scores[mine])
    if seen.sum() != n_total:
        raise InputError(f"{n_total} candidates were announced but {seen.sum()} scores came; score again")
    if seen.tolist() != sizes:
        raise InputError(f"the candidates of {n_total} do not have each of {strata} alphas in turn; score again")
    found = [of_groups.cut()] if of_groups is not None else [of_alpha.cut() for of_alpha in best]
    ids, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(ids, kind="stable")
    ids, scores = ids[order], scores[order]
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise InputError(f"candidate {repeated[0]} was scored more than once; score again")
    ids, scores = ids[scores <= high], scores[scores <= high]
    rules = alone | {rule: int(np.sum(each)) for rule, each in limits.items()}
    if not len(ids):
        raise NothingSelectedError(_nothing(settings, bounds, rules, above_band, sample, n_total))
    return Selection(
        ids,
        float(scores.min()),
        n_total,
        rules,
        min(rules, key=lambda name: rules[name]),
        bounds["tau"][0] if settings.tau == "auto" else None,
        bounds.get("typical"),
        None if quotas is None else int((quotas.reshape(-1, strata).sum(axis=1) > 0).sum()),
    )


def conformal_bound(held_out: NDArray[np.float64], level: float) -> float:
    """The k-th smallest of n held-out log scores, k = floor(level (n + 1)): all but `level` of new ones reach it.

    Raises ImpossibleError where n is too small for that level.
    """
    return _order_statistics(held_out, level, f"select.tau: auto with select.tau_level = {level:g}")[0]


def conformal_band(held_out: NDArray[np.float64], central: float) -> Bounds:
    """The k-th smallest and largest of n held-out log scores, k = floor((1 - central)/2 (n + 1)).

    New ones lie between them, ends included, with probability at least `central`. Raises as `conformal_bound`.
    """
    return _order_statistics(held_out, (1 - central) / 2, f"select.typical = {central:g}")


def _order_statistics(held_out: NDArray[np.float64], level: float, rule: str) -> Bounds:
    n = len(held_out)
    k = math.floor(level * (n + 1) + 1e-9)  # 0.05 * 20 is meant to be 1
    if k < 1:
        raise ImpossibleError(
            f"{rule} needs at least {math.ceil(1 / level - 1e-9) - 1} held-out latents; there are {n}: "
            "raise data.test, or choose a rule that asks for fewer"
        )
    ordered = np.sort(held_out)
    return float(ordered[k - 1]), float(ordered[n - k])


def _bounds(settings: Select, held_out: NDArray[np.float64] | None) -> dict[str, Bounds]:
    real = np.empty(0) if held_out is None else np.asarray(held_out, np.float64)
    if settings.needs_held_out and np.isnan(real).any():
        raise InputError("the score of a held-out latent is NaN; score again")
    bounds = {}
    if settings.tau == "auto":
        bounds["tau"] = (conformal_bound(real, settings.tau_level), math.inf)
    elif settings.tau is not None:
        bounds["tau"] = (math.nextafter(math.log(settings.tau), math.inf), math.inf)  # strictly above
    if settings.typical is not None:
        bounds["typical"] = conformal_band(real, settings.typical)
    return bounds


def _limits(sizes: list[int], settings: Select) -> dict[str, list[int]]:
    """How many each rule keeps of each stratum."""
    limits = {}
    if settings.top_fraction is not None:
        limits["top_fraction"] = [min(n, max(1, math.floor(settings.top_fraction * n + 0.5))) for n in sizes]
    if settings.top_count is not None:
        each, over = divmod(settings.top_count, len(sizes))
        limits["top_count"] = [min(n, each + (a < over)) for a, n in enumerate(sizes)]
    return limits


def _quotas(cells: NDArray[np.int64], settings: Select, seed: int) -> dict[str, NDArray[np.int64]]:
    """How many each rule keeps of each cell, a group or an alpha of one."""
    limits = {}
    if settings.top_fraction is not None:
        limits["top_fraction"] = proportional(
            cells, max(1, math.floor(settings.top_fraction * cells.sum() + 0.5)), seed
        )
    if settings.top_count is not None:
        limits["top_count"] = even(cells, settings.top_count, seed)
    return limits


def _checked(ids: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    ids, scores = np.asarray(ids, np.int64), np.asarray(scores, np.float64)
    if ids.ndim != 1 or ids.shape != scores.shape:
        raise InputError(f"a chunk needs as many ids as scores; found shapes {ids.shape} and {scores.shape}")
    bad = np.isnan(scores)
    if bad.any():
        raise InputError(f"the score of candidate {ids[np.argmax(bad)]} is NaN ({int(bad.sum())} such); score again")
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
        self.scores.append(scores if self.exact else scores[id_hash(ids) < self.below])

    def quantiles(self) -> list[float]:
        """Actual scores, not between two, at LEVELS."""
        scores = np.sort(np.concatenate(self.scores))
        return [float(scores[int(level * (len(scores) - 1))]) for level in LEVELS] if len(scores) else []


def _nothing(
    settings: Select,
    bounds: dict[str, Bounds],
    alone: dict[str, int],
    above_band: int,
    sample: _Sample,
    n_total: int,
) -> str:
    """Which rules kept nothing, and what would."""
    about = "" if sample.exact else f" (approximate: from a sample of {sum(map(len, sample.scores))})"
    quantiles = list(zip(LEVELS, sample.quantiles(), strict=False))
    if alone.get("tau") == 0:
        tau = f"{settings.tau:g}" if settings.tau != "auto" else f"auto, here {_lds(bounds['tau'][0])},"
        lines = [
            f"select.tau = {tau} keeps none of {n_total} candidates: the largest LDS is {_lds(sample.largest)}.",
            f"Values that select.tau could take{about}:",
        ]
        for level, value in quantiles:
            lines.append(f"  {_lds(value)} keeps about the densest {1 - level:.0%} ({level:.0%} quantile)")
        lines.append(f"  less than {_lds(sample.largest)} keeps at least one (the maximum)")
        lines.append("Set one of them, or drop select.tau and use select.top_fraction or select.top_count.")
        return "\n".join(lines)
    lines = []
    if "typical" in bounds:
        least, most = bounds["typical"]
        below, within = n_total - alone["typical"] - above_band, alone["typical"]
        spread = ", ".join(f"{value:.6g} ({level:.0%} quantile)" for level, value in quantiles)
        lines += [
            f"select.typical = {settings.typical:g} is log LDS from {least:.6g} to {most:.6g}, by held-out real "
            f"latents. Of {n_total} candidates {below} lie below it, {within} within, {above_band} above; "
            f"their log LDS{about}: {spread}, {sample.largest:.6g} (the maximum)."
        ]
        if above_band > below:
            lines.append(
                "Interpolants are usually denser than real latents: score.interpolation: slerp, select.exclude_parents "
                "or a wider select.typical may bring them into the band."
            )
    if all(alone.values()):
        lines.append(f"Alone the rules keep {', '.join(f'{n} ({rule})' for rule, n in alone.items())}; together none.")
    lines.append("Drop or loosen a rule of select.")
    return "\n".join(lines)


def _lds(log_value: float) -> str:
    value = math.exp(log_value)
    if value < 1e-300:
        return f"LDS below 1e-300, too small for a tau (log LDS {log_value:.6g})"
    return f"{value:.6g} (log LDS {log_value:.6g})"
