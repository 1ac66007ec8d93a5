"""`nearest_neighbour`: a multiple of the median distance of a latent to the nearest other.

Raises ImpossibleError where the median is 0 (half of the latents have a duplicate), or there are fewer than two.
"""

from __future__ import annotations

import numpy as np

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Latents, Numbers, SigmaRule
from ldsaug_ray.lds.sigma.sample import duplicates_among, nearest_distances, sample_of


def _find(z: Latents, given: Numbers, score: Score, seed: int) -> tuple[float, Numbers]:
    scale, distances = given["scale"], nearest_distances(z, sample_of(len(z), seed))
    median = float(np.median(distances))
    if median == 0:
        raise ImpossibleError(
            f"score.sigma.rule: nearest_neighbour comes out as 0: {duplicates_among(distances)}. Remove the "
            "duplicates from the data, or set score.sigma.rule to norm_fraction, parent_share or fixed"
        )
    return scale * median, {"scale": scale, "median_distance": median, "sampled_latents": len(distances)}


def _sentence(numbers: Numbers) -> str:
    return (
        f"{numbers['scale']:g} × the median distance to the nearest other latent, {numbers['median_distance']:.4g}, "
        f"of {numbers['sampled_latents']:,.0f} latents"
    )


WORDS = "scale x median distance of a latent to the nearest other"
SIGMA_RULES.add("nearest_neighbour", SigmaRule({"scale": 1.0}, _find, _sentence, WORDS))
