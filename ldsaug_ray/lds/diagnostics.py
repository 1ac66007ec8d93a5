"""In which regime a run is: does "dense" mean near its own parents, near the mean, or truly among many latents?

Takes per-candidate scores, gives numbers (`Regime`) and plain sentences, one for each trap of the method. The
regime is a property of the latents, so every run measures its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds.interpolation import interpolate
from ldsaug_ray.lds.latents import check_pairs, row_blocks, validate_latents
from ldsaug_ray.lds.pairs import Candidates

Array = NDArray[np.float64]

_ONE = -1e-5  # log LDS above which LDS is 1, to float32's error
WHERE_LATENTS_COINCIDE = (
    "where the images are alike, give others (data.source); where they differ, the encoder gives one latent for all: "
    "look at the reconstructions, train longer (train.steps), or lower train.objective.beta"
)


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


def norms_from_mean(train: ArrayLike, candidates: Candidates, kind: Interpolation = "linear") -> Array:
    """Distance of each candidate from the training mean, ||z - mean||, float64[M]; candidates are made in blocks.

    Raises InputError for invalid latents or parents, ConfigError for an unknown kind of interpolation.
    """
    z = validate_latents(train)
    check_pairs(np.stack([candidates.i, candidates.j], axis=1), len(z))
    mean = z.mean(axis=0, dtype=np.float64)
    out = np.empty(len(candidates))
    for rows in row_blocks(len(candidates), z.shape[1]):
        points = interpolate(z, candidates.i[rows], candidates.j[rows], candidates.alpha[rows], kind)
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


def sentences(regime: Regime) -> list[str]:
    """The findings in plain English, one number each, good news included."""
    r = regime
    if latents_coincide(r.max_log_lds):
        return [coinciding(r.n_latents)]  # whatever else was measured is rounding
    found = [_parents(r), _neighbours(r)]
    if r.correlation_with_middle is not None and r.extreme_share_selected is not None and len(r.alphas) > 1:
        found.append(_alphas(r))
    if r.overlap_without_parents is not None:
        found.append(_ranking(r))
    if r.correlation_with_mean is not None:
        found.append(_mean(r))
    if r.norm_shrinkage is not None:
        found.append(_norm(r))
    if r.denser_than_median is not None:
        found.append(_real(r))
    found.append(
        f"The largest LDS of the run is {np.exp(r.max_log_lds):.3g} and the median {np.exp(r.median_log_lds):.3g} "
        f"(log {r.max_log_lds:.2f} and {r.median_log_lds:.2f}): a select.tau at or above the largest keeps nothing."
    )
    return found


def latents_coincide(log_lds: float) -> bool:
    """Whether this is the score of a candidate that all training latents coincide with: LDS is 1 nowhere else."""
    return log_lds > _ONE


def coinciding(n: int) -> str:
    """The finding that all `n` training latents coincide."""
    return (
        f"All {n:,} training latents coincide, and LDS is 1 for every candidate: no bandwidth and no rule of select "
        f"can prefer one to another, and what is kept is arbitrary. What to do: {WHERE_LATENTS_COINCIDE}."
    )


def _parents(r: Regime) -> str:
    share = f"{r.median_parent_share:.0%} of a typical candidate's density comes from its own two parents"
    if r.median_parent_share >= 0.5:
        return (
            f"In this run {share}: 'dense' means 'almost a copy of a training image'; "
            "consider select.exclude_parents=true or a larger sigma (score.sigma)."
        )
    if r.median_parent_share >= 0.1:
        return (
            f"In this run {share}: enough to sway the ranking; "
            "compare with select.exclude_parents=true before trusting it."
        )
    if r.median_parent_share < 0.005:
        share = share.replace(f"{r.median_parent_share:.0%}", "less than 0.5%", 1)
    return f"Only {share}: the score measures the other training latents, as intended."


def _neighbours(r: Regime) -> str:
    n = r.median_effective_neighbours
    count = f"{n:,.0f}" if n >= 100 else f"{n:.3g}"
    count = f"{count} of {r.n_latents:,} training latents"
    if r.median_effective_neighbours > 0.5 * r.n_latents:
        return (
            f"A typical candidate's density is an even average over {count}: the bandwidth blurs all structure; "
            "consider a smaller sigma (score.sigma)."
        )
    if r.median_effective_neighbours < 3:
        return (
            f"A typical candidate's density rests on effectively {count}: "
            "the bandwidth is narrow; consider a larger sigma (score.sigma)."
        )
    return f"A typical candidate's density rests on effectively {count}."


def _alphas(r: Regime) -> str:
    names = " or ".join(f"{a:g}" for a in r.extreme_alphas)
    shares = (
        f"{r.extreme_share_selected:.0%} of the selected have alpha = {names}, against {r.extreme_share:.0%} of all"
    )
    correlation = f"rank correlation of density with min(alpha, 1 - alpha) {r.correlation_with_middle:+.2f}"
    assert r.extreme_share_selected is not None
    if r.extreme_share_selected > 1.5 * r.extreme_share and r.extreme_share_selected > r.extreme_share + 0.1:
        return f"{shares} ({correlation}): the selection prefers candidates next to a parent."
    if r.extreme_share_selected < r.extreme_share / 1.5:
        return f"{shares} ({correlation}): the selection prefers midpoints between its parents."
    return f"{shares} ({correlation}): the selection does not hang on alpha."


def _ranking(r: Regime) -> str:
    overlap = f"{r.overlap_without_parents:.0%} (Jaccard)"
    assert r.overlap_without_parents is not None
    if r.overlap_without_parents < 0.5:
        return f"Ranked without their own parents, other candidates would be kept: overlap only {overlap}."
    if r.overlap_without_parents < 0.8:
        return f"Ranked without their own parents, many other candidates would be kept: overlap {overlap}."
    return f"Ranked without their own parents, much the same candidates would be kept: overlap {overlap}."


def _mean(r: Regime) -> str:
    correlation = f"rank correlation with closeness to the mean {r.correlation_with_mean:+.2f}"
    assert r.correlation_with_mean is not None
    if r.correlation_with_mean >= 0.9:
        return (
            f"The score ranks by distance to the mean latent ({correlation}): it prefers average images; "
            "consider a smaller sigma (score.sigma)."
        )
    if r.correlation_with_mean >= 0.5:
        return f"The score leans towards average images ({correlation})."
    return f"The score is more than distance to the mean latent ({correlation})."


def _norm(r: Regime) -> str:
    shrinkage = f"{r.norm_shrinkage:.0%} as far from the mean as training latents"
    assert r.norm_shrinkage is not None
    if r.norm_shrinkage < 0.9:
        return f"Candidates lie {shrinkage}: linear interpolation shrinks the norm, which alone makes them look dense."
    return f"Candidates lie {shrinkage}: interpolation barely shrinks the norm."


def _real(r: Regime) -> str:
    assert r.denser_than_median is not None
    assert r.denser_than_most is not None
    share = (
        f"{r.denser_than_most:.0%} of the candidates are denser than 97.5% of held-out real latents "
        f"({r.denser_than_most_without_parents:.0%} without their own parents) and {r.denser_than_median:.0%} denser "
        "than their median, where real latents would be 2.5% and 50%"
    )
    if r.denser_than_most > 0.25 or r.denser_than_median > 0.9:
        return f"{share}: denser is not more real here; consider select.typical or score.interpolation=slerp."
    if r.denser_than_median < 0.1:
        return f"{share}: most candidates lie where real latents hardly do; consider select.tau=auto."
    return f"{share}."
