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
    found = [_parents(r.median_parent_share), _neighbours(r.median_effective_neighbours, r.n_latents)]
    if r.correlation_with_middle is not None and r.extreme_share_selected is not None and len(r.alphas) > 1:
        found.append(_alphas(r, r.extreme_share_selected))
    if r.overlap_without_parents is not None:
        found.append(_ranking(r.overlap_without_parents))
    if r.correlation_with_mean is not None:
        found.append(_mean(r.correlation_with_mean))
    if r.norm_shrinkage is not None:
        found.append(_norm(r.norm_shrinkage))
    if r.denser_than_median is not None and r.denser_than_most is not None:
        found.append(_real(r, r.denser_than_median, r.denser_than_most))
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


def _parents(median: float) -> str:
    share = f"{median:.0%} of a typical candidate's LDS comes from its own two parents"
    if median >= 0.5:
        return (
            f"In this run {share}: 'dense' means 'almost a copy of a training image'; "
            "consider select.exclude_parents=true or a larger sigma (score.sigma)."
        )
    if median >= 0.1:
        return (
            f"In this run {share}: enough to sway the ranking; "
            "compare with select.exclude_parents=true before trusting it."
        )
    if median < 0.005:
        share = share.replace(f"{median:.0%}", "less than 0.5%", 1)
    return f"Only {share}: the score measures the other training latents, as intended."


def _neighbours(median: float, n_latents: int) -> str:
    count = f"{median:,.0f}" if median >= 100 else f"{median:.3g}"
    count = f"{count} of {n_latents:,} training latents"
    if median > 0.5 * n_latents:
        return (
            f"A typical candidate's LDS is an even average over {count}: the bandwidth blurs all structure; "
            "consider a smaller sigma (score.sigma)."
        )
    narrow = ": the bandwidth is narrow; consider a larger sigma (score.sigma)" if median < 3 else ""
    return f"A typical candidate's LDS rests on effectively {count}{narrow}."


def _alphas(r: Regime, selected: float) -> str:
    names = " or ".join(f"{a:g}" for a in r.extreme_alphas)
    what = "does not hang on alpha"
    if selected > max(1.5 * r.extreme_share, r.extreme_share + 0.1):
        what = "prefers candidates next to a parent"
    elif selected < r.extreme_share / 1.5:
        what = "prefers midpoints between its parents"
    return (
        f"{selected:.0%} of the selected have alpha = {names}, against {r.extreme_share:.0%} of all (rank correlation "
        f"of LDS with min(alpha, 1 - alpha) {r.correlation_with_middle:+.2f}): the selection {what}."
    )


def _ranking(overlap: float) -> str:
    others = "many other" if overlap < 0.8 else "much the same"
    others, only = ("other", " only") if overlap < 0.5 else (others, "")
    return (
        f"Ranked without their own parents, {others} candidates would be kept: overlap{only} {overlap:.0%} (Jaccard)."
    )


def _mean(correlation: float) -> str:
    number = f"rank correlation with closeness to the mean {correlation:+.2f}"
    if correlation >= 0.9:
        return (
            f"The score ranks by distance to the mean latent ({number}): it prefers average images; "
            "consider a smaller sigma (score.sigma)."
        )
    if correlation >= 0.5:
        return f"The score leans towards average images ({number})."
    return f"The score is more than distance to the mean latent ({number})."


def _norm(shrinkage: float) -> str:
    what = "linear interpolation shrinks the norm, which alone makes them look dense"
    what = what if shrinkage < 0.9 else "interpolation barely shrinks the norm"
    return f"Candidates lie {shrinkage:.0%} as far from the mean as training latents: {what}."


def _real(r: Regime, than_median: float, than_most: float) -> str:
    share = (
        f"{than_most:.0%} of the candidates are denser than 97.5% of held-out real latents "
        f"({r.denser_than_most_without_parents:.0%} without their own parents) and {than_median:.0%} denser "
        "than their median, where real latents would be 2.5% and 50%"
    )
    if than_most > 0.25 or than_median > 0.9:
        return f"{share}: denser is not more real here; consider select.typical or score.interpolation=slerp."
    if than_median < 0.1:
        return f"{share}: most candidates lie where real latents hardly do; consider select.tau=auto."
    return f"{share}."
