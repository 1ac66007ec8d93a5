"""In which regime a run is: does "dense" mean near its own parents, near the mean, or truly among many latents?

Takes per-candidate scores, gives numbers (`Regime`); `findings` says them in words. The regime is a property of the
latents, so every run measures its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds.interpolation import interpolate
from ldsaug_ray.lds.latents import row_blocks, validate_latents
from ldsaug_ray.lds.noise import Noise
from ldsaug_ray.lds.pairs import Candidates

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """Log LDS of real latents that the density was not made of: how many, their median and central 95 %."""

    count: int
    low: float  # 2.5 % quantile
    median: float
    high: float  # 97.5 % quantile

    @classmethod
    def of(cls, log_lds: Array) -> HeldOut:
        """Of scores float64[n], n >= 1."""
        low, median, high = np.quantile(log_lds, [0.025, 0.5, 0.975]).tolist()
        return cls(len(log_lds), low, median, high)


@dataclass(frozen=True)
class Regime:
    """What the scores of one run reward. None: undefined here (nothing selected, or a constant)."""

    n_candidates: int
    n_selected: int
    n_latents: int
    median_log_lds: float
    max_log_lds: float
    median_parent_share: float  # of all candidates; 0..1
    median_parent_share_selected: float | None
    median_effective_neighbours: float  # 1..n_latents
    correlation_with_middle: float | None  # Spearman, log LDS with min(alpha, 1 - alpha)
    correlation_with_mean: float | None  # Spearman, log LDS with -||z - mean||^2
    alphas: tuple[float, ...]
    alpha_share: tuple[float, ...]  # of each alpha among all candidates
    alpha_share_selected: tuple[float, ...] | None
    extreme_alphas: tuple[float, ...]  # those nearest to a parent
    extreme_share: float
    extreme_share_selected: float | None
    overlap_without_parents: float | None  # Jaccard: selected, if the densest, and as many ranked without their parents
    norm_shrinkage: float | None  # mean ||z - mean||: candidates / training latents
    denser_than_median: float | None  # share of candidates denser than the median of held-out real latents
    denser_than_most: float | None  # the same, than 97.5 % of them
    denser_than_most_without_parents: float | None  # the same, by the density without the own two parents


def latent_norms(train: ArrayLike) -> Array:
    """Distance of each training latent from their mean, ||z_k - mean||, float64[N]. InputError for invalid latents."""
    z = validate_latents(train)
    mean = z.mean(axis=0, dtype=np.float64)
    out = np.empty(len(z))
    for rows in row_blocks(*z.shape):
        block = np.subtract(z[rows], mean, dtype=np.float64)
        out[rows] = np.sqrt(np.einsum("nd,nd->n", block, block))
    return out


def norms_from_mean(
    train: ArrayLike, candidates: Candidates, kind: Interpolation = "linear", noise: Noise | None = None
) -> Array:
    """Distance of each candidate from the training mean, ||z - mean||, float64[M]; candidates are made in blocks.

    Raises InputError for invalid latents or parents, ConfigError for an unknown kind of interpolation.
    """
    z = validate_latents(train)
    mean = z.mean(axis=0, dtype=np.float64)
    out = np.empty(len(candidates))
    for rows in row_blocks(len(candidates), z.shape[1]):
        i, j, alpha, ids = (getattr(candidates, name)[rows] for name in ("i", "j", "alpha", "id"))
        points = interpolate(z, i, j, alpha, kind, noise, ids)
        out[rows] = np.linalg.norm(points - mean, axis=1)
    return out


def regime(
    *,
    log_lds: Array,
    log_lds_excluding_parents: Array,
    parent_share: Array,
    effective_neighbours: Array,
    alpha: Array,
    selected: NDArray[np.bool_],
    distance_to_mean: Array,
    train_distance_to_mean: Array,
    held_out: HeldOut | None = None,
) -> Regime:
    """Measure the regime from all candidates, or a large sample drawn without regard to score.

    The first seven are [M], one value a candidate: scores of one sigma, alpha, the mask of the kept, and
    `norms_from_mean`; then `latent_norms`, [N], and held-out latents scored with the same sigma, where there are any.
    Raises InputError for no candidates or unequal lengths.
    """
    columns = (log_lds, log_lds_excluding_parents, parent_share, effective_neighbours, alpha, selected)
    lengths = [len(column) for column in (*columns, distance_to_mean)]
    if len(set(lengths)) != 1 or not lengths[0] or not len(train_distance_to_mean):
        raise InputError(f"the regime needs equally many values of each kind, at least one; found lengths {lengths}")
    kept = np.asarray(selected, bool)
    count = int(kept.sum())
    values, which = np.unique(alpha, return_inverse=True)
    middle = np.minimum(values, 1 - values)
    extreme = np.isclose(middle, middle.min(), rtol=0, atol=1e-9)
    train_mean = float(np.mean(train_distance_to_mean))
    return Regime(
        n_candidates=lengths[0],
        n_selected=count,
        n_latents=len(train_distance_to_mean),
        median_log_lds=float(np.median(log_lds)),
        max_log_lds=float(np.max(log_lds)),
        median_parent_share=float(np.median(parent_share)),
        median_parent_share_selected=float(np.median(parent_share[kept])) if count else None,
        median_effective_neighbours=float(np.median(effective_neighbours)),
        correlation_with_middle=spearman(log_lds, middle[which]),
        correlation_with_mean=spearman(log_lds, -(distance_to_mean**2)),
        alphas=tuple(values.tolist()),
        alpha_share=tuple((np.bincount(which) / lengths[0]).tolist()),
        alpha_share_selected=(
            tuple((np.bincount(which[kept], minlength=len(values)) / count).tolist()) if count else None
        ),
        extreme_alphas=tuple(values[extreme].tolist()),
        extreme_share=float(extreme[which].mean()),
        extreme_share_selected=float(extreme[which][kept].mean()) if count else None,
        overlap_without_parents=(
            _overlap(log_lds_excluding_parents, kept)
            if count and any(_are_densest(kept, score) for score in (log_lds, log_lds_excluding_parents))
            else None
        ),
        norm_shrinkage=float(np.mean(distance_to_mean)) / train_mean if train_mean > 0 else None,
        denser_than_median=float((log_lds > held_out.median).mean()) if held_out else None,
        denser_than_most=float((log_lds > held_out.high).mean()) if held_out else None,
        denser_than_most_without_parents=(
            float((log_lds_excluding_parents > held_out.high).mean()) if held_out else None
        ),
    )


def spearman(a: Array, b: Array) -> float | None:
    """Rank correlation, ties at their mean rank; None where one side is constant."""
    from scipy.stats import rankdata  # takes a second, and every worker process imports this module

    ranks = [rankdata(x) - (len(x) + 1) / 2 for x in (a, b)]
    spread = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / spread if spread > 0 else None


def _are_densest(kept: NDArray[np.bool_], scores: Array) -> bool:
    """Whether none that was left out is denser than one that was kept: not so for a band, or within each alpha."""
    return bool(scores[kept].min() >= scores[~kept].max(initial=-np.inf))


def _overlap(scores: Array, kept: NDArray[np.bool_]) -> float:
    rival = np.zeros_like(kept)
    rival[np.argsort(-scores, kind="stable")[: kept.sum()]] = True  # ties by lower place, as `select` does
    return float((kept & rival).sum() / (kept | rival).sum())
