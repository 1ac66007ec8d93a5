"""The regime in plain English: one sentence with a number for each trap of the method, and what to do about it."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.lds.diagnostics import Regime

_ONE = -1e-5  # log LDS above which LDS is 1, to float32's error
WHERE_LATENTS_COINCIDE = (
    "where the images are alike, give others (data.source); where they differ, the encoder gives one latent for all: "
    "look at the reconstructions, train longer (train.steps), or lower train.objective.beta"
)


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
