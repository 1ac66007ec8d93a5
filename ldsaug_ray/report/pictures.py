"""Every picture of the page by file name: figures as SVG, contact sheets as PNG, what else a domain shows as HTML."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.report import figures
from ldsaug_ray.report.data import ReportData
from ldsaug_ray.report.sheets import beside, drawn

_TERMS = {  # in the order of the page; a term that is not here comes after them, under its own name
    "loss": "Loss",
    "reconstruction": "Reconstruction error",
    "held_out_reconstruction": "The same, of test images",
    "kl": "KL divergence, nats per image",
    "beta": "Weight β of the KL term",
    "perceptual": "Perceptual distance",
    "adversarial": "Adversarial loss of the decoder",
    "discriminator": "Loss of the discriminator",
    "real_logit": "Logit of real images",
    "fake_logit": "Logit of decoded images",
    "r1": "Gradient penalty R1",
    "path_length": "Path length regularisation",
    "augment_probability": "Probability of augmentation",
    "cycle": "Cycle error of A’s latents",
    "gradient_norm": "Gradient norm",
}
SCORE_NAMES = {"log_lds": "log LDS", "log_lds_excluding_parents": "log LDS without parents"}


def loss_terms(data: ReportData) -> dict[str, str]:
    """Terms of the curves and their titles: every one that some point has."""
    found = {name for curve in data.curves for point in curve.points for name in point} - {"step"}
    others = sorted(found - set(_TERMS))
    return {n: _TERMS.get(n, n.replace("_", " ").capitalize()) for n in [*_TERMS, *others] if n in found}


def score_histogram(data: ReportData) -> figures.Histogram:
    """Histogram of the score that `select` ranked by."""
    return figures.histogram(data.scores.ranking(data.threshold.ranked_by), data.scores.selected)


def pictures_of(data: ReportData) -> dict[str, bytes]:
    """All pictures, file name -> content; the same data gives the same bytes."""
    scores, found = data.scores, data.regime
    name = SCORE_NAMES[data.threshold.ranked_by]
    ranking = scores.ranking(data.threshold.ranked_by)
    share = figures.histogram(np.clip(scores.parent_share, 0, 1), scores.selected, 40)
    neighbours = figures.histogram(np.maximum(scores.effective_neighbours, 1), scores.selected, 40, log=True)
    pictures = {
        "density.svg": figures.density(score_histogram(data), data.threshold.log, name, data.held_out),
        "by-alpha.svg": figures.by_alpha(scores.alpha, ranking, data.threshold.log, name),
        "alpha-share.svg": figures.alpha_share(found.alphas, found.alpha_share, found.alpha_share_selected),
        "parent-share.svg": figures.shares(share, "share of the density from the own two parents"),
        "neighbours.svg": figures.shares(neighbours, f"effective neighbours, of {found.n_latents:,}", log=True),
    }
    if data.parents.attributes:
        pictures["attributes.svg"] = figures.attributes(data.parents.attributes)
    if data.frontier is not None:
        pictures["frontier.svg"] = figures.frontier(data.frontier)
    for term in loss_terms(data):
        pictures[f"curve-{term}.svg"] = figures.curve(data.curves, term)
    for band in data.bands:
        pictures |= drawn(f"band-{band.number}", band.tiles)
    for number, pick in enumerate(data.picks, start=1):
        pictures |= drawn(f"selected-{number:03d}", pick.tiles, 3)
    if (shown := data.reconstructions) is not None:
        for row, items in (("original", shown.originals), ("before", shown.before), ("after", shown.after)):
            if items is not None:
                pictures |= drawn(f"reconstruction-{row}", items)
    if (samples := data.prior_samples) is not None:
        pictures |= drawn("samples-before", samples.before)
        if samples.after is not None:
            pictures |= drawn("samples-after", samples.after)
    for gallery in data.evaluation.galleries if data.evaluation else ():
        pictures |= drawn(f"{gallery.set}-{gallery.kind}", beside(gallery.tiles, gallery.nearest))
    return pictures
