"""Selection that equals the exact one, for part of its kernel evaluations: candidates race against the threshold.

The latents are read in one random order. After each block every undecided candidate has an interval that holds its log
LDS (`_far`); when the interval lies wholly on one side of the threshold it is decided and reads no more. What is still
undecided at the end has been read in full, and where even that is too close, float64 decides. Every interval of a race
holds at once with probability 1 - delta, and then the selected set is that of the exact scores.

On one machine: `race_pairs`. On several: each makes a `Racer` of its own pairs, told the number of all candidates, and
reads the first part; the caller pools all bounds into `bracket_of`; each finishes against that; what is selected
follows from the scores alone, by `select` or any other ranking with ties by lower candidate id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds import _kernel
from ldsaug_ray.lds._near_far import BoundedScores, OrderedLatents, Reading, one_by_one
from ldsaug_ray.lds._shared import (
    LARGEST_ALPHA,
    TILE_LATENTS,
    TILE_ROWS,
    Geometry,
    check_settings,
    checked_numbers,
    precisions_of,
)
from ldsaug_ray.lds.latents import check_pairs, validate_latents
from ldsaug_ray.lds.neighbours import Neighbours, Products, nearest

Array = NDArray[np.float64]
Index = NDArray[np.int64]

NEIGHBOURS = 64  # of each parent
FIRST, STEP, LARGEST_STEP = 1 / 256, 1 / 2, 1 / 16  # blocks: of N; of what has been read; of N
SMALLEST_BLOCK = 256  # latents
HORIZONS = np.array([1 / 32, 1 / 8, 1 / 2])  # of N: what may have been read when a candidate is decided


@dataclass(frozen=True)
class Race:
    """How a race ended; arrays [P, A] unless said otherwise.

    selected: bool, the exact selection; scores: arrays [P, A, 1]; estimates lie in their intervals, so that ranking
    them, ties by lower candidate number, selects the same set; evaluations: kernel values that were computed (of a
    candidate and a latent), exact_evaluations: those of exact scores; inner_products: of a parent and a latent, the
    search for neighbours not included; blocks: how often candidates were looked at; finished: how many of them float64
    had to decide.
    """

    selected: NDArray[np.bool_]
    scores: BoundedScores
    evaluations: int
    exact_evaluations: int
    inner_products: int
    blocks: int
    finished: int


def race_pairs(
    train: ArrayLike,
    pairs: ArrayLike,
    alphas: Sequence[float] | Array,
    sigma: float,
    *,
    tau: float | None = None,
    top_count: int | None = None,
    exclude_parents: bool = False,
    delta: float = 1e-3,
    seed: int = 0,
    neighbours: int | Neighbours = NEIGHBOURS,
    products: Products = "float32",
    interpolation: Interpolation = "linear",
    tile_rows: int = TILE_ROWS,
    tile_latents: int = TILE_LATENTS,
) -> Race:
    """Select what exact scores would select, with probability at least 1 - delta.

    train: float32[N, d]; pairs: int64[P, 2]; alphas: [A]; candidate p * A + a. One of tau (LDS > tau, strictly) and
    top_count (the densest, ties by lower candidate number) must be given; the LDS that counts leaves the parents out
    where `exclude_parents`. seed: of the order in which latents are read; the answer is a function of the arguments
    alone, beyond rounding. neighbours: how many of each parent are summed first, or their lists, one for each of
    np.unique(pairs); products: what `nearest` takes to find them.
    Raises InputError for invalid latents or pairs, ConfigError for the rest.
    """
    if (tau is None) == (top_count is None):
        raise ConfigError(f"a race needs one of tau and top_count; found tau = {tau} and top_count = {top_count}")
    if tau is not None and not (math.isfinite(tau) and tau > 0):
        raise ConfigError(f"tau must be a positive number; found {tau}")
    if top_count is not None and top_count < 1:
        raise ConfigError(f"top_count must be at least 1; found {top_count}")
    racer = Racer(
        train,
        pairs,
        alphas,
        sigma,
        exclude_parents=exclude_parents,
        delta=delta,
        seed=seed,
        neighbours=neighbours,
        products=products,
        interpolation=interpolation,
        tile_rows=tile_rows,
        tile_latents=tile_latents,
    )
    if tau is not None:
        racer.run(math.log(tau), math.log(tau))
        return racer.result(racer.estimates() > math.log(tau))
    assert top_count is not None
    racer.decide(*bracket_of(*racer.bounds(), top_count))
    while racer.advance():
        racer.decide(*bracket_of(*racer.bounds(), top_count))
    racer.finish()
    selected = np.zeros(racer.undecided.size, bool)
    selected[np.lexsort((np.arange(len(selected)), -racer.estimates()))[:top_count]] = True
    return racer.result(selected)


def bracket_of(lows: Array, highs: Array, count: int) -> tuple[float, float]:
    """Where the threshold of the `count` densest can lie, from bounds of all candidates' scores, [C] each.

    Returns the count-th largest lower bound, below which a candidate is out (as many surely beat it), and the next
    after the count-th largest upper bound, above which it is in (too few can beat it): -inf where all are in. The
    first may exceed the second; then nothing is undecided.
    """
    n = len(lows)
    if count >= n:
        return -math.inf, -math.inf
    return float(np.partition(lows, n - count)[n - count]), float(np.partition(highs, n - count - 1)[n - count - 1])


class Racer:
    """The candidates of some pairs in a race: what `race_pairs` is made of, for a caller who holds only some pairs.

    n_candidates: of the whole race, default those of `pairs`: delta is shared among them; latents: to share among
    racers of the same seed. The rest as `race_pairs`. Holds about 300 bytes a candidate, and the tiles.
    """

    def __init__(
        self,
        train: ArrayLike,
        pairs: ArrayLike,
        alphas: Sequence[float] | Array,
        sigma: float,
        *,
        exclude_parents: bool = False,
        delta: float = 1e-3,
        seed: int = 0,
        neighbours: int | Neighbours = NEIGHBOURS,
        n_candidates: int | None = None,
        products: Products = "float32",
        interpolation: Interpolation = "linear",
        tile_rows: int = TILE_ROWS,
        tile_latents: int = TILE_LATENTS,
        latents: OrderedLatents | None = None,
    ) -> None:
        if not 0 < delta < 1:
            raise ConfigError(f"delta must lie between 0 and 1; found {delta}")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed must be within 0..2**64-1; found {seed}")
        z = validate_latents(train)
        p = check_pairs(pairs, len(z))
        check_settings("exact", np.float32, interpolation, tile_rows, tile_latents)
        self.latents = latents or OrderedLatents.of(z, seed)
        self.train, self.pairs, self.exclude_parents = z, p, exclude_parents
        self.precisions = precisions_of([sigma])
        self.geometry = Geometry.of(z, p, checked_numbers(alphas, "alphas", LARGEST_ALPHA), interpolation)
        self.tiles = max(2, tile_rows), tile_latents
        parents, local = np.unique(p, return_inverse=True)
        points = z[parents]
        if not isinstance(neighbours, Neighbours):
            neighbours = nearest(
                self.latents.frame, z, points, parents, neighbours, products=products, tile_rows=self.tiles[0]
            )
        if not neighbours.bounded or len(neighbours.ids) != len(parents):
            raise ConfigError(
                "neighbours must be a bounded list for each of the distinct parents (an index that may miss some "
                f"bounds nothing); found {len(neighbours.ids)} lists of {len(parents)}, bounded: {neighbours.bounded}"
            )
        count = self.geometry.mix.u.size
        one_end = delta / (2 * max(1, n_candidates or count))
        self.reading = Reading(
            self.latents,
            points,
            parents,
            neighbours,
            local.reshape(-1, 2),
            self.geometry,
            self.precisions,
            one_end,
            HORIZONS * len(z),
            *self.tiles,
        )
        self.undecided = np.ones(count, bool)
        self.blocks = self.finished = 0
        self._exact = _kernel.Sums.empty(*self.geometry.mix.u.shape, 1)  # of those that were finished in float64

    def advance(self) -> bool:
        """Read the next block for what is undecided; False where nothing is, or everything has been read."""
        n, at = len(self.train), self.reading.at
        if at >= n or not self.undecided.any():
            return False
        step = max(SMALLEST_BLOCK, int(n * FIRST), int(min(at * STEP, n * LARGEST_STEP)))
        self.reading.read(min(n, at + step), np.flatnonzero(self.undecided))
        self.blocks += 1
        return True

    def read(self, share: float) -> None:
        """Read until `share` of the latents have been read."""
        while self.reading.at < share * len(self.train) and self.advance():
            pass

    def decide(self, low: float, high: float) -> None:
        """Drop what lies wholly below `low` or wholly above `high`."""
        lows, highs = self.bounds()
        self.undecided &= ~((highs < low) | (lows > high))

    def run(self, low: float, high: float) -> None:
        """Decide everything against a threshold that lies within low..high; what may lie within is scored exactly."""
        self.decide(low, high)
        while self.advance():
            self.decide(low, high)
        self.finish()

    def finish(self) -> None:
        """Score what is still undecided exactly, in float64."""
        which = np.flatnonzero(self.undecided)
        pair, alpha = np.divmod(which, self.geometry.mix.u.shape[1])
        sums = _kernel.pair_sums(
            self.latents.frame,
            self.train,
            np.arange(len(self.train)),
            self.pairs[pair],
            self.geometry.gaps[pair],
            one_by_one(self.geometry.mix, which),
            self.train,
            self.precisions,
            np.float64,
            *self.tiles,
        )
        self._exact.put((pair, alpha), sums.of((slice(None), 0)))
        self.undecided[which] = False
        self.reading.evaluations += len(which) * len(self.train)
        self.finished += len(which)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of the score that counts, float64[C] each."""
        scores = self.scores()
        if self.exclude_parents:
            return scores.log_lds_excluding_parents_low.ravel(), scores.log_lds_excluding_parents_high.ravel()
        return scores.log_lds_low.ravel(), scores.log_lds_high.ravel()

    def estimates(self) -> Array:
        """The score that counts, inside its bounds, float64[C]."""
        scores = self.scores()
        return (scores.log_lds_excluding_parents if self.exclude_parents else scores.log_lds).ravel()

    def scores(self) -> BoundedScores:
        """What is known of every candidate now, [P, A, 1]."""
        return self.reading.scores(self._exact)

    def result(self, selected: NDArray[np.bool_]) -> Race:
        """The race's record, with that selection [C]."""
        shape = self.geometry.mix.u.shape
        return Race(
            selected.reshape(shape),
            self.scores(),
            self.reading.evaluations,
            self.undecided.size * len(self.train),
            self.reading.inner_products,
            self.blocks,
            self.finished,
        )
