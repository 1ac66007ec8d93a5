"""`leave_one_out`: the sigma under which each latent is likeliest among the others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.lds.latents import validate_latents
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Latents, Numbers, SigmaRule
from ldsaug_ray.lds.sigma.sample import FINER_GRID, Array, duplicates_among, grid_of, nearest_distances, sample_of


def sigma_leave_one_out(train: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Sigma of the greatest mean_k log p_-k(z_k), and that mean in nats.

    p_-k is the Gaussian kernel density of all latents but z_k (Duin 1976), k goes over a sample of at most
    SAMPLED_LATENTS. Found to about 1 % by one pass over a geometric grid and one between the best one's neighbours.
    Raises ImpossibleError where the likelihood is greatest at an end of the grid: duplicates drive sigma to 0.
    """
    from ldsaug_ray.lds.exact import score_leave_one_out

    z = validate_latents(train)
    rows = sample_of(len(z), seed)
    d = z.shape[1]

    def likelihood(sigmas: Array) -> Array:
        among_others: Array = score_leave_one_out(z, rows, sigmas).mean(axis=0)
        return among_others - d * np.log(sigmas) - d / 2 * math.log(2 * math.pi)

    grid = grid_of(z, "leave_one_out")
    best = int(np.argmax(likelihood(grid)))
    if best in (0, len(grid) - 1):
        duplicates = "; " + duplicates_among(nearest_distances(z, rows)) if best == 0 else ""
        raise ImpossibleError(
            f"score.sigma.rule: leave_one_out finds no best sigma: the likelihood of {len(rows)} latents among the "
            f"others still rises at sigma = {grid[best]:g}, the {'least' if best == 0 else 'largest'} tried"
            f"{duplicates}. Set score.sigma.rule to norm_fraction, parent_share or fixed"
        )
    finer = np.geomspace(grid[best - 1], grid[best + 1], FINER_GRID)
    found = likelihood(finer)
    best = int(np.argmax(found))
    return float(finer[best]), float(found[best])


def _find(z: Latents, given: Numbers, score: Score, seed: int) -> tuple[float, Numbers]:
    sigma, likelihood = sigma_leave_one_out(z, seed)
    return sigma, {"log_likelihood": likelihood, "sampled_latents": len(sample_of(len(z), seed))}


def _sentence(numbers: Numbers) -> str:
    return (
        f"the likeliest for {numbers['sampled_latents']:,.0f} latents among the others (leave-one-out, "
        f"{numbers['log_likelihood']:.2f} nats a latent)"
    )


WORDS = (
    "that under which each latent is likeliest among the others (in many dimensions so small that a candidate sees "
    "little but its parents)"
)
SIGMA_RULES.add("leave_one_out", SigmaRule({}, _find, _sentence, WORDS))
