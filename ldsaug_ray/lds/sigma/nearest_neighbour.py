"""`nearest_neighbour`: a multiple of the median distance of a latent to the nearest other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Score
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds.latents import validate_latents
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, Fields, Numbers, SigmaRule
from ldsaug_ray.lds.sigma.sample import duplicates_among, nearest_distances, sample_of


class NearestNeighbour(SigmaRule):
    """See `nearest_distance`."""

    fields: ClassVar[Fields] = {"scale": 1.0}

    def find(self, z: NDArray[np.floating], given: Numbers, score: Score, seed: int) -> tuple[float, dict[str, float]]:
        """Numbers: scale, median_distance, sampled_latents."""
        scale, median = given["scale"], nearest_distance(z, seed)
        sampled = len(sample_of(len(z), seed))
        return scale * median, {"scale": scale, "median_distance": median, "sampled_latents": sampled}

    def sentence(self, numbers: Numbers) -> str:
        """The multiple, the distance, and of how many."""
        return (
            f"{numbers['scale']:g} × the median distance to the nearest other latent, "
            f"{numbers['median_distance']:.4g}, of {numbers['sampled_latents']:,.0f} latents"
        )


SIGMA_RULES.add("nearest_neighbour", NearestNeighbour())


def nearest_distance(train: ArrayLike, seed: int = 0) -> float:
    """Median distance of a latent to the nearest other, over a sample of at most SAMPLED_LATENTS.

    Raises InputError where it is 0 (half of the latents have a duplicate), or there are fewer than two.
    """
    z = validate_latents(train)
    distances = nearest_distances(z, sample_of(len(z), seed))
    median = float(np.median(distances))
    if median == 0:
        raise InputError(
            f"score.sigma.rule: nearest_neighbour comes out as 0: {duplicates_among(distances)}. Remove the "
            "duplicates from the data, or set score.sigma.rule to norm_fraction, parent_share or fixed"
        )
    return median
