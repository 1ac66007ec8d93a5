"""`parent_share`: the sigma at which a candidate's density is no longer that of its own two parents.

At the paper's sigma a candidate's parents may hold nearly all of its density: "dense" then means "almost a copy".
"""

from __future__ import annotations

import numpy as np

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.lds.pairs import plan_pairs
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Latents, Numbers, SigmaRule
from ldsaug_ray.lds.sigma.sample import FINER_GRID, Array, grid_of

SAMPLED_PAIRS = 512


def _find(z: Latents, given: Numbers, score: Score, seed: int) -> tuple[float, Numbers]:
    """Sigma at which a candidate's own parents hold `share` of its density, and the share that was reached.

    The share is the median over the alphas of the first SAMPLED_PAIRS pairs of the plan (`plan_pairs`), which are a
    random sample. It falls as sigma grows, since more of the others come within reach; in few dimensions, where others
    lie nearer than the parents, it rises first, and the larger sigma is taken. One pass over a geometric grid, two
    between the values that bracket the share. Raises ImpossibleError where none do, with the shares that were found.
    """
    from ldsaug_ray.lds.exact import score_pairs

    share = given["share"]
    pairs = plan_pairs(len(z), SAMPLED_PAIRS, seed)

    def medians(sigmas: Array) -> Array:
        found = score_pairs(z, pairs, score.alphas, sigmas, interpolation=score.interpolation)
        medians: Array = np.median(found.parent_share, axis=(0, 1))
        return medians

    grid = grid_of(z, "parent_share")
    found = medians(grid)
    if not found[-1] < share <= found.max():
        raise ImpossibleError(
            f"score.sigma.rule: parent_share = {share:g} is not to be had: for sigma from {grid[0]:g} to {grid[-1]:g} "
            f"the parents hold {found.min():.3g} to {found.max():.3g} of a typical candidate's density; set "
            "score.sigma.share within that, or another rule"
        )
    for _ in range(2):
        above = max(np.flatnonzero(found >= share), default=0)  # the last that holds it
        grid = np.geomspace(grid[above], grid[min(above + 1, len(grid) - 1)], FINER_GRID)
        found = medians(grid)
    best = int(np.argmin(np.abs(found - share)))
    return float(grid[best]), {"share": float(found[best]), "sampled_pairs": SAMPLED_PAIRS}


def _sentence(numbers: Numbers) -> str:
    share = f"{100 * numbers['share']:.1f}".removesuffix(".0")
    pairs = f"{numbers['sampled_pairs']:,.0f} pairs"
    return f"where the own parents hold {share}% of a typical candidate's density, by {pairs}"


WORDS = "that at which the own two parents hold `share` of a typical candidate's density"
SIGMA_RULES.add("parent_share", SigmaRule({"share": 0.1}, _find, _sentence, WORDS, pairs=True))
