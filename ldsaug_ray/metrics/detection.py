"""LDS as a detector: does log LDS tell held-out real latents from latents of damaged images, or of no faces at all?

A user sees whether LDS measures "realness" on their data: 0.5 is chance, 1 is perfect, and below 0.5 the score prefers
what is not real.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import score_points, sigma_from_norm, validate_latents

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Auroc:
    """Area under the ROC curve and its standard error (DeLong et al. 1988); n images of either side."""

    value: float
    standard_error: float
    n_real: int
    n_other: int


@dataclass(frozen=True)
class Detection:
    """AUROC of one group at one bandwidth: sigma = scale x mean norm of the latents, from their mean if `centred`."""

    group: str
    scale: float
    centred: bool
    sigma: float
    auroc: Auroc


def by_bandwidth(found: Iterable[Detection]) -> dict[tuple[float, bool], list[Detection]]:
    """(scale, centred) -> every group's at that bandwidth, in the order they come in."""
    rows: dict[tuple[float, bool], list[Detection]] = {}
    for x in found:
        rows.setdefault((x.scale, x.centred), []).append(x)
    return rows


def auroc(real_scores: ArrayLike, other_scores: ArrayLike, *, paired: bool = False) -> Auroc:
    """How well a higher score marks the real ones: P(real > other) + P(equal) / 2, from scores float[n] and float[m].

    Args:
        paired: the k-th of the others was made from the k-th real image: their scores vary together, and the standard
            error takes that into account.

    Raises:
        InputError: fewer than two scores on a side, one that is NaN or infinite, or pairs of different numbers.
    """
    from scipy.stats import rankdata  # takes a second, and every worker process imports this module
    from sklearn.metrics import roc_auc_score

    real, other = (_scores(x, name) for x, name in ((real_scores, "real"), (other_scores, "other")))
    n, m = len(real), len(other)
    both = np.concatenate([real, other])
    value = float(roc_auc_score(np.arange(n + m) < n, both))
    ranks = rankdata(both)
    # share of the other side below each score: DeLong's placement values
    beats = (ranks[:n] - rankdata(real)) / m
    loses = 1 - (ranks[n:] - rankdata(other)) / n
    if paired and n != m:
        raise InputError(f"AUROC of pairs needs as many other scores as real ones; found {m} and {n}")
    variance = (beats + loses).var(ddof=1) / n if paired else beats.var(ddof=1) / n + loses.var(ddof=1) / m
    error = variance**0.5
    return Auroc(value, float(error), n, m)


def detect(
    train: ArrayLike,
    held_out: ArrayLike,
    others: Mapping[str, ArrayLike],
    *,
    scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0),
    centring: Sequence[bool] = (False, True),
    paired: Collection[str] = (),
    device: str = "cpu",
) -> list[Detection]:
    """AUROC of log LDS for held-out real latents against each group of others, at every bandwidth.

    Subtracting a mean changes no distance, so centring changes LDS only through sigma, where that is taken from norms:
    with a common offset, sigma = scale x mean norm is another number.

    Args:
        train: latents float[N, d].
        held_out: real latents float[H, d] that the VAE was not trained on.
        others: name of a group -> latents float[M, d].
        scales: sigma over the mean norm.
        centring: norms are taken from the latents' mean (True), from the origin as in the paper (False), or both.
        paired: groups whose k-th latent is of a copy of the k-th held-out image.

    Raises:
        InputError: invalid latents, or fewer than two in a group.
        ConfigError: no group, no scale, or one that is not positive.
    """
    if not others or not scales or not centring:
        raise ConfigError("detection needs at least one group, one scale and one way of centring")
    z = validate_latents(train)
    mean = z.mean(axis=0, dtype=np.float64)
    ways = [
        (scale, centred, sigma_from_norm(z - mean if centred else z, scale)) for centred in centring for scale in scales
    ]
    sigmas = [sigma for *_, sigma in ways]
    real = score_points(z, held_out, sigmas, device=device)
    found = []
    for group, latents in others.items():
        scores = score_points(z, latents, sigmas, device=device)
        for at, (scale, centred, sigma) in enumerate(ways):
            measured = auroc(real[:, at], scores[:, at], paired=group in paired)
            found.append(Detection(group, scale, centred, sigma, measured))
    return found


def _scores(values: ArrayLike, name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise InputError(f"AUROC needs at least two {name} scores; found shape {list(x.shape)}")
    if not np.isfinite(x).all():
        raise InputError(f"AUROC: {int((~np.isfinite(x)).sum())} of {len(x)} {name} scores are NaN or infinite")
    return x
