"""The plan of candidates over some latents: random pairs, blocks, pairs of neighbours, single latents; with noise.

Any range of candidates can be named without the rest, and each is a function of (seed, id). Pairs of neighbours and
single latents are a list, in an order by the seed, which is gone through again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.lds.noise import Noise
from ldsaug_ray.lds.pairs import Candidates, candidates
from ldsaug_ray.lds.sigma.sample import duplicates_among, nearest_distances, sample_of

LIST = int.from_bytes(b"list", "big")  # keeps the order apart from other uses of the same seed
SPARE = 8  # neighbours found beyond those asked for: distances in float64 decide


@dataclass(frozen=True, eq=False)
class Plan:
    """Candidates over n latents. listed: int64[L, 2], the pairs in order, each of a latent with itself where single;
    none where pairs are drawn as they are asked for.
    """

    n: int
    alphas: tuple[float, ...]
    seed: int
    block: tuple[int, int] | None = None
    listed: NDArray[np.int64] | None = None
    noise: Noise | None = None

    @classmethod
    def of(cls, train: NDArray[np.floating], score: Score, seed: int) -> Plan:
        """The plan that settings ask for, over latents float[N, d].

        Raises:
            InputError, ImpossibleError: too few latents, or pairs of neighbours, for it.
        """
        check_plan(len(train), score, seed)
        listed = None
        if score.plan == "neighbours":
            listed = neighbour_pairs(train, score.neighbours, seed)
            most = len(listed) * len(score.alphas)
            if not score.noise and score.n_candidates > most:
                raise ImpossibleError(
                    f"score.plan: neighbours: {len(train)} latents have {len(listed)} pairs with their "
                    f"{score.neighbours} nearest, {most} candidates; lower score.n_candidates = {score.n_candidates}, "
                    "raise score.neighbours, or set score.noise, so that none comes twice"
                )
        elif score.plan == "single":
            listed = np.repeat(np.arange(len(train))[:, None], 2, axis=1)
        if listed is not None:
            listed = listed[np.random.default_rng([seed, LIST]).permutation(len(listed))]
        return cls(len(train), score.plan_alphas, seed, score.block_shape, listed, noise_over(train, score, seed))

    def candidates(self, start: int, stop: int) -> Candidates:
        """Candidates start..stop-1. Raises as `candidates`."""
        if self.listed is None:
            return candidates(self.n, self.alphas, start, stop, self.seed, self.block)
        ids = np.arange(start, stop, dtype=np.int64)
        pairs = self.listed[ids // len(self.alphas) % len(self.listed)]
        return Candidates(ids, pairs[:, 0], pairs[:, 1], np.asarray(self.alphas, np.float64)[ids % len(self.alphas)])


def noise_over(train: NDArray[np.floating], score: Score, seed: int) -> Noise | None:
    """Noise of `score.noise` times the median distance of a latent to the nearest other (of a sample); none without.

    Raises:
        ImpossibleError: the median is 0.
    """
    return noise_of(train, score.noise, seed, "score.noise") if score.noise else None


def noise_of(train: NDArray[np.floating], share: float, seed: int, setting: str) -> Noise:
    """Noise of a share of that median distance; `setting` names the share in errors. Raises as `noise_over`."""
    distances = nearest_distances(train, sample_of(len(train), seed))
    median = float(np.median(distances))
    if not median:
        raise ImpossibleError(
            f"{setting} is a share of the median distance to the nearest latent, which is 0: "
            f"{duplicates_among(distances)}. Remove the duplicates from the data, or set {setting} to 0"
        )
    return Noise(share * median, seed)


def check_plan(n: int, score: Score, seed: int) -> None:
    """Raise InputError or ImpossibleError where n latents are too few for the plan."""
    candidates(n, score.plan_alphas, 0, 1, seed, score.block_shape)
    if score.plan == "neighbours" and score.neighbours >= n:
        raise ImpossibleError(
            f"score.neighbours = {score.neighbours}: a latent has {n - 1} others among {n} training latents; lower it"
        )


def neighbour_pairs(train: NDArray[np.floating], k: int, seed: int) -> NDArray[np.int64]:
    """Every pair of a latent with one of its k nearest, once, int64[L, 2], i < j, ascending; of equally near ones those
    of lower number. Found by FAISS in float32, ranked by distances in float64.
    """
    nearest = nearest_latents(train, k, seed)
    pairs = np.stack([np.repeat(np.arange(len(train)), nearest.shape[1]), nearest.reshape(-1)], axis=1)
    return np.unique(np.sort(pairs[pairs[:, 1] >= 0], axis=1), axis=0)


def nearest_latents(train: NDArray[np.floating], k: int, seed: int) -> NDArray[np.int64]:
    """The k others nearest to each latent, int64[N, k], the nearest first; found and ranked as `neighbour_pairs`."""
    from ldsaug_ray.lds.index import Approximation, LatentIndex
    from ldsaug_ray.lds.neighbours import squared_distances

    n = len(train)
    settings = Approximation(neighbours=min(k + SPARE, n - 1), seed=seed % 2**31)
    found = LatentIndex.build(train, settings).search(train, train, np.arange(n), settings).ids
    squares = squared_distances(train, found, train)
    return np.take_along_axis(found, np.lexsort((found, squares), axis=1)[:, :k], axis=1)
