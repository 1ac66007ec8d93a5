"""The kernel's bandwidth sigma, one number for all latents, and the rules that find it.

`norm_fraction` is the paper's. `leave_one_out` and `nearest_neighbour` ask what the latents themselves suggest,
`parent_share` at which bandwidth a candidate's density is no longer that of its own two parents (spec section 2, trap
2). Those three look at a sample of latents or pairs, drawn by the seed, against all latents, so that they stay cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds.diagnostics import WHERE_LATENTS_COINCIDE, latent_norms
from ldsaug_ray.lds.exact import score_leave_one_out, score_pairs
from ldsaug_ray.lds.latents import row_blocks, squared_gaps, validate_latents
from ldsaug_ray.lds.pairs import plan_pairs

Array = NDArray[np.float64]

SAMPLED_LATENTS = 2048
SAMPLED_PAIRS = 512
GRID, FINER_GRID = 32, 16  # bandwidths of the first pass over distances, and of each that refines it
LARGEST_OF_SPREAD = 2.0  # the grid's ends, as multiples of the root mean square distance from the mean
SMALLEST_OF_SPREAD = 0.02
# In d dimensions the nearest neighbour alone would put leave_one_out at its distance / sqrt(d)
SMALLEST_OF_NEAREST = 0.3
_TAG = int.from_bytes(b"bandwidth", "big")  # keeps these draws apart from other uses of the same seed


@dataclass(frozen=True)
class ChosenSigma:
    """A bandwidth, the rule of `score.sigma` that gave it, and that rule's own numbers.

    norm_fraction      scale, mean_norm
    fixed              none
    leave_one_out      log_likelihood (mean log density of a latent among the others, nats), sampled_latents
    nearest_neighbour  scale, median_distance, sampled_latents
    parent_share       share (the parents' median share at this sigma), sampled_pairs
    """

    sigma: float
    rule: str
    numbers: dict[str, float]


def resolve_sigma(train: ArrayLike, score: Score, seed: int = 0) -> ChosenSigma:
    """The bandwidth that `score.sigma` asks for, on latents float[N, d]; the same for the same latents and seed.

    Raises InputError where the latents do not determine one (all zero or equal, duplicates, a share that no bandwidth
    gives), or are invalid.
    """
    settings = score.sigma
    if settings.rule == "fixed":
        return ChosenSigma(settings.number("value"), "fixed", {})
    z = validate_latents(train)
    if settings.rule == "norm_fraction":
        scale = settings.number("scale")
        sigma = sigma_from_norm(z, scale)
        return ChosenSigma(sigma, "norm_fraction", {"scale": scale, "mean_norm": sigma / scale})
    if settings.rule == "leave_one_out":
        sigma, likelihood = sigma_leave_one_out(z, seed)
        numbers = {"log_likelihood": likelihood, "sampled_latents": len(_sample(len(z), seed))}
        return ChosenSigma(sigma, "leave_one_out", numbers)
    if settings.rule == "nearest_neighbour":
        scale, median = settings.number("scale"), nearest_distance(z, seed)
        numbers = {"scale": scale, "median_distance": median, "sampled_latents": len(_sample(len(z), seed))}
        return ChosenSigma(scale * median, "nearest_neighbour", numbers)
    sigma, share = sigma_for_parent_share(z, settings.number("share"), score, seed)
    return ChosenSigma(sigma, "parent_share", {"share": share, "sampled_pairs": SAMPLED_PAIRS})


def sigma_from_norm(train: ArrayLike, scale: float = 0.2) -> float:
    """`scale` times the mean L2 norm of the latents [N, d], in float64 (the paper's sigma: one fifth of it).

    The norm is from the origin, not from the mean: a common offset of the latents changes it. Raises InputError when
    every latent is zero (or the latents are invalid), ConfigError unless scale is positive and finite.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise ConfigError(f"the scale of sigma must be positive and finite; found {scale}")
    z = validate_latents(train)
    total = 0.0
    for rows in row_blocks(*z.shape):
        block = z[rows].astype(np.float64)
        total += float(np.sqrt(np.einsum("nd,nd->n", block, block)).sum())
    sigma = scale * (total / len(z))
    if sigma == 0 or not math.isfinite(sigma):
        raise InputError(
            f"sigma = {scale:g} x mean norm of {len(z)} latents comes out as {sigma}: "
            f"the latents are all zero, and LDS would be 1 everywhere for any sigma; {WHERE_LATENTS_COINCIDE}"
        )
    return sigma


def sigma_leave_one_out(train: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Sigma of the greatest mean_k log p_-k(z_k), and that mean in nats.

    p_-k is the Gaussian kernel density of all latents but z_k (Duin 1976), k goes over a sample of at most
    SAMPLED_LATENTS. Found to about 1 % by one pass over a geometric grid and one between the best one's neighbours.
    Raises InputError where the likelihood is greatest at an end of the grid: duplicates drive sigma to 0.
    """
    z = validate_latents(train)
    rows = _sample(len(z), seed)
    d = z.shape[1]

    def likelihood(sigmas: Array) -> Array:
        among_others: Array = score_leave_one_out(z, rows, sigmas).mean(axis=0)
        return among_others - d * np.log(sigmas) - d / 2 * math.log(2 * math.pi)

    grid = _grid(z, "leave_one_out")
    best = int(np.argmax(likelihood(grid)))
    if best in (0, len(grid) - 1):
        duplicates = "; " + _duplicates(nearest_distances(z, rows)) if best == 0 else ""
        raise InputError(
            f"score.sigma.rule: leave_one_out finds no best sigma: the likelihood of {len(rows)} latents among the "
            f"others still rises at sigma = {grid[best]:g}, the {'least' if best == 0 else 'largest'} tried"
            f"{duplicates}. Set score.sigma.rule to norm_fraction, parent_share or fixed"
        )
    finer = np.geomspace(grid[best - 1], grid[best + 1], FINER_GRID)
    found = likelihood(finer)
    best = int(np.argmax(found))
    return float(finer[best]), float(found[best])


def nearest_distance(train: ArrayLike, seed: int = 0) -> float:
    """Median distance of a latent to the nearest other, over a sample of at most SAMPLED_LATENTS.

    Raises InputError where it is 0 (half of the latents have a duplicate), or there are fewer than two.
    """
    z = validate_latents(train)
    distances = nearest_distances(z, _sample(len(z), seed))
    median = float(np.median(distances))
    if median == 0:
        raise InputError(
            f"score.sigma.rule: nearest_neighbour comes out as 0: {_duplicates(distances)}. Remove the duplicates from "
            "the data, or set score.sigma.rule to norm_fraction, parent_share or fixed"
        )
    return median


def nearest_distances(train: ArrayLike, rows: NDArray[np.int64]) -> Array:
    """Distance of each latent of `rows`, int64[M], to the nearest other of `train`, float64[M].

    FAISS finds the neighbour in float32 coordinates around the mean; the distance to it is then taken directly.
    Raises InputError for invalid latents, or fewer than two.
    """
    import faiss

    z = validate_latents(train)
    if len(z) < 2:
        raise InputError("a nearest other latent needs at least 2 training latents; found 1")
    mean, spread = z.mean(axis=0, dtype=np.float64), _spread(z) or 1.0

    def centred(some: NDArray[np.floating]) -> NDArray[np.float32]:  # of size 1: squares of float32 may overflow
        return np.ascontiguousarray((some - mean) / spread, np.float32)

    index = faiss.IndexFlatL2(z.shape[1])
    for block in row_blocks(*z.shape):
        index.add(centred(z[block]))
    out = np.empty(len(rows))
    for block in row_blocks(len(rows), z.shape[1]):
        own = rows[block]
        found = index.search(centred(z[own]), 2)[1]
        other = np.where(found[:, 0] == own, found[:, 1], found[:, 0])  # with duplicates itself may be second, or third
        out[block] = np.sqrt(squared_gaps(z, np.stack([own, other], axis=1)))
    return out


def sigma_for_parent_share(train: ArrayLike, share: float, score: Score, seed: int = 0) -> tuple[float, float]:
    """Sigma at which a candidate's own parents hold `share` of its density, and the share that was reached.

    The share is the median over the alphas of the first SAMPLED_PAIRS pairs of the plan (`plan_pairs`), which are a
    random sample. It falls as sigma grows, since more of the others come within reach; in few dimensions, where others
    lie nearer than the parents, it rises first, and the larger sigma is taken. One pass over a geometric grid, two
    between the values that bracket the share. Raises InputError where none do, with the shares that were found.
    """
    z = validate_latents(train)
    pairs = plan_pairs(len(z), SAMPLED_PAIRS, seed)

    def medians(sigmas: Array) -> Array:
        found = score_pairs(z, pairs, score.alphas, sigmas, interpolation=score.interpolation)
        medians: Array = np.median(found.parent_share, axis=(0, 1))
        return medians

    grid = _grid(z, "parent_share")
    found = medians(grid)
    if not found[-1] < share <= found.max():
        raise InputError(
            f"score.sigma.rule: parent_share = {share:g} is not to be had: for sigma from {grid[0]:g} to {grid[-1]:g} "
            f"the parents hold {found.min():.3g} to {found.max():.3g} of a typical candidate's density; set "
            "score.sigma.share within that, or another rule"
        )
    for _ in range(2):
        above = max(np.flatnonzero(found >= share), default=0)  # the last that holds it
        grid = np.geomspace(grid[above], grid[min(above + 1, len(grid) - 1)], FINER_GRID)
        found = medians(grid)
    best = int(np.argmin(np.abs(found - share)))
    return float(grid[best]), float(found[best])


def _grid(z: NDArray[np.floating], rule: str) -> Array:
    """Bandwidths to try, float64[GRID], ascending by a constant factor."""
    spread = _spread(z)
    if spread == 0:
        raise InputError(
            f"score.sigma.rule: {rule} finds no sigma: all {len(z)} latents are equal, and LDS would be 1 "
            f"everywhere for any sigma; {WHERE_LATENTS_COINCIDE}"
        )
    smallest = min(SMALLEST_OF_SPREAD, SMALLEST_OF_NEAREST / math.sqrt(z.shape[1]))
    return np.geomspace(smallest * spread, LARGEST_OF_SPREAD * spread, GRID)


def _spread(z: NDArray[np.floating]) -> float:
    """Root mean square distance of the latents from their mean."""
    return float(np.sqrt(np.mean(latent_norms(z) ** 2)))


def _sample(n: int, seed: int) -> NDArray[np.int64]:
    """At most SAMPLED_LATENTS different rows of n, ascending."""
    if n <= SAMPLED_LATENTS:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, _TAG]).choice(n, SAMPLED_LATENTS, replace=False, shuffle=False))


def _duplicates(distances: Array) -> str:
    return f"{int((distances == 0).sum())} of {len(distances)} latents looked at have an exact duplicate"
