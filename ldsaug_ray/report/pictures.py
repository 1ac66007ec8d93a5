"""Every picture of the page by file name: figures as SVG, contact sheets as PNG."""

from __future__ import annotations

import numpy as np

from ldsaug_ray.report import figures
from ldsaug_ray.report.data import ReportData
from ldsaug_ray.report.sheets import sheet

_TERMS = {
    "loss": "loss per pixel value",
    "reconstruction": "reconstruction error per value",
    "kl": "KL divergence, nats per image",
}
_NOT_LOSSES = {"step", "beta", "gradient_norm"}
SCORE_NAMES = {"log_lds": "log LDS", "log_lds_excluding_parents": "log LDS without parents"}


def loss_terms(data: ReportData) -> dict[str, str]:
    """Terms of the loss curves and their axis labels, the common ones first."""
    found = {name for curve in data.curves for point in curve.points for name in point} - _NOT_LOSSES
    return {n: _TERMS.get(n, n.replace("_", " ")) for n in [*_TERMS, *sorted(found - set(_TERMS))] if n in found}


def score_histogram(data: ReportData) -> figures.Histogram:
    """Histogram of the score that `select` ranked by."""
    return figures.histogram(data.scores.ranking(data.threshold.ranked_by), data.scores.selected)


def draw(data: ReportData) -> dict[str, bytes]:
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
    for term, label in loss_terms(data).items():
        pictures[f"curve-{term}.svg"] = figures.loss(data.curves, term, label)
    for band in data.bands:
        pictures[f"band-{band.number}.png"] = sheet(band.tiles)
    for number, pick in enumerate(data.picks, start=1):
        pictures[f"selected-{number:03d}.png"] = sheet(pick.tiles, 3)
    shown = data.reconstructions
    for row, images in (("original", shown.originals), ("before", shown.before), ("after", shown.after)):
        if images is not None:
            pictures[f"reconstruction-{row}.png"] = sheet(images)
    return pictures
