"""Candidates whose near field is summed exactly and whose far field is read in random order, block by block. Private.

The near field of a candidate is the union of its parents' lists (`Neighbours`). A latent in neither list is at least
as far from the candidate as Stewart's theorem gives for two latents at the lists' edges, which bounds its weight. The
parents themselves belong to neither field; their weights are added from geometry (`with_parents`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.lds import _near_compiled
from ldsaug_ray.lds._compiled import in_threads
from ldsaug_ray.lds._far import FarField
from ldsaug_ray.lds._frame import Frame
from ldsaug_ray.lds._kernel import Mix, Sums, merge, pair_sums, rows_within
from ldsaug_ray.lds._shared import Geometry, PairScores, with_parents
from ldsaug_ray.lds.latents import row_blocks
from ldsaug_ray.lds.neighbours import Neighbours

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SHARD_BYTES = 32 * 2**20  # of latents gathered at a time
# Seconds that a GFLOP of inner products, and 10^9 kernel values, took on two cores: their ratio decides, not their size
PRODUCT, VALUES_IN_TENTHS, VALUES = 3.1e-3, 0.064, 0.79
ALONE = 8192  # candidates whose vectors exist at a time
TAG = int.from_bytes(b"order", "big")  # second key word: keeps this stream apart from other uses of the same seed


@dataclass(frozen=True)
class OrderedLatents:
    """The training latents, in the random order in which they are read; made once for any number of candidates."""

    train: NDArray[np.floating]  # [N, d]
    frame: Frame
    order: Index  # [N] the latent that comes at each place
    place: Index  # [N] where each latent comes
    norms: tuple[float, float]  # least and largest squared norm, about the origin
    farthest: float  # largest distance from the mean

    @classmethod
    def of(cls, train: NDArray[np.floating], seed: int) -> OrderedLatents:
        """In the order of that seed, the same everywhere."""
        frame = Frame.over(train)
        order = np.random.Generator(np.random.Philox(key=np.array([seed, TAG], np.uint64))).permutation(len(train))
        place = np.empty_like(order)
        place[order] = np.arange(len(train))
        least, largest, farthest = math.inf, 0.0, 0.0
        for rows in row_blocks(*train.shape):
            norms = np.einsum("nd,nd->n", train[rows], train[rows], dtype=np.float64)
            least, largest = min(least, float(norms.min())), max(largest, float(norms.max()))
            farthest = max(farthest, float(frame.rows(train[rows], np.float32).norms.max()))
        return cls(train, frame, order, place, (least, largest), math.sqrt(farthest) * frame.scale)


@dataclass(frozen=True)
class BoundedScores(PairScores):
    """Estimated scores and intervals that hold the exact ones; float64 arrays of the shape of the others, [P, A, S].

    The intervals of log_lds and of log_lds_excluding_parents follow from one inequality: both hold, or neither. An
    estimate lies in its interval. bounded: whether the upper ends are certain (see `Neighbours`); the lower ones are.
    """

    log_lds_low: Array
    log_lds_high: Array
    log_lds_excluding_parents_low: Array
    log_lds_excluding_parents_high: Array
    bounded: bool


class Reading:
    """The candidates of some pairs, [P, A] at S bandwidths; C = P * A, in the order of their numbers."""

    def __init__(
        self,
        latents: OrderedLatents,
        points: NDArray[np.floating],  # [R, d] what pairs are made of
        own: Index,  # [R] the latent that each is, -1 for none
        lists: Neighbours,  # of each
        pairs: Index,  # [P, 2] rows of `points`
        geometry: Geometry,
        precisions: Array,  # [S]
        delta: float,  # of one end of one interval
        horizons: Array,  # see `FarField`
        tile_rows: int,
        tile_latents: int,
    ) -> None:
        self.latents, self.points, self.own, self.lists = latents, points, own, lists
        self.pairs, self.geometry, self.precisions = pairs, geometry, precisions
        self.tile_rows, self.tile_latents = tile_rows, tile_latents
        self.shape = (*geometry.mix.u.shape, len(precisions))
        self.at = 0  # latents read
        self.evaluations = self.inner_products = 0
        n = len(latents.train)
        near, counts = self._near(np.arange(len(pairs)), geometry.mix, 0, n)
        self.near = _shaped(near, (-1, len(precisions)))
        self.evaluations += int(counts.sum()) * geometry.mix.u.shape[1]
        far = np.repeat(n - counts - self._parents_within(pairs, 0, n), geometry.mix.u.shape[1])
        reference = (self._least_distance()[..., None] * precisions).reshape(-1, len(precisions))
        self.far = FarField(np.where(far[:, None] > 0, reference, 0.0), far, delta, horizons, lists.bounded)

    def read(self, end: int, which: Index) -> None:
        """Read the latents up to place `end` for candidates `which`, int64[c] ascending, who missed none before."""
        width = self.shape[1]
        step = max(1, SHARD_BYTES // (4 * self.latents.train.shape[1]))
        pair = which // width
        whole = np.unique(pair)
        alone = self._alone_is_cheaper(which, whole)
        rows, mix = (pair, one_by_one(self.geometry.mix, which)) if alone else (whole, self.geometry.mix.of(whole))
        wanted = np.arange(len(which)) if alone else np.searchsorted(whole, pair) * width + which % width
        while self.at < end:
            begin, stop = self.at, min(end, self.at + step)
            shard = self.latents.train[self.latents.order[begin:stop]]
            sums = self._alone(rows, mix, shard) if alone else self._pairs(rows, mix, shard)
            near, counts = self._near(rows, mix, begin, stop)
            n = len(shard) - counts - self._parents_within(self.pairs[rows], begin, stop)
            self.evaluations += int((counts + len(shard)).sum()) * mix.u.shape[1]
            block, near = (_shaped(some, (-1, self.shape[2])).of(wanted) for some in (sums, near))
            self.far.add(which, block, near, np.repeat(n, mix.u.shape[1])[wanted])
            self.at = stop

    def _alone_is_cheaper(self, which: Index, whole: Index) -> bool:
        """Whether to give each candidate a row of its own, not its pair's two parents rows for all its alphas."""
        row = 2e-9 * self.points.shape[1] * PRODUCT
        values = 1e-9 * self.shape[2] * (VALUES if self.geometry.mix.tenths is None else VALUES_IN_TENTHS)
        pairs = len(np.unique(self.pairs[whole])) * row + len(whole) * self.shape[1] * values
        return len(which) * (row + 1e-9 * self.shape[2] * VALUES) < pairs

    def _pairs(self, rows: Index, mix: Mix, shard: NDArray[np.floating]) -> Sums:
        """Sums over the block that comes next, parents left out, for some pairs (a pair may come again)."""
        self.inner_products += len(np.unique(self.pairs[rows])) * len(shard)
        return self._sums(self.points, self._place(self.own), self.pairs[rows], self.geometry.gaps[rows], mix, shard)

    def _alone(self, rows: Index, mix: Mix, shard: NDArray[np.floating]) -> Sums:
        """The same for pairs of one candidate each, as points. A point can leave out one latent, and needs no more
        but for the few whose parents are both in the block.
        """
        places = self._place(self.own[self.pairs[rows]])
        inside = (places >= 0) & (places < len(shard))
        sums = Sums.empty(len(rows), 1, self.shape[2])
        both = np.flatnonzero(inside.all(1))
        if len(both):
            sums.put(both, self._pairs(rows[both], mix.of(both), shard))
        rest = np.flatnonzero(~inside.all(1))
        step = rows_within(2 * ALONE, self.points.shape[1]) // 2  # float64
        for start in range(0, len(rest), step):
            part = rest[start : start + step]
            i, j = self.pairs[rows[part]].T
            points = mix.u[part] * self.points[i] + mix.v[part] * self.points[j]
            hidden = np.where(inside[part, 0], places[part, 0], np.where(inside[part, 1], places[part, 1], -1))
            local = np.repeat(np.arange(len(part))[:, None], 2, axis=1)
            sums.put(part, self._sums(points, hidden, local, np.zeros(len(part)), Mix.itself(len(part)), shard))
            self.inner_products += len(part) * len(shard)
        return sums

    def _sums(
        self,
        points: NDArray[np.floating],
        hidden: Index,
        pairs: Index,
        gaps: Array,
        mix: Mix,
        shard: NDArray[np.floating],
    ) -> Sums:
        return pair_sums(
            self.latents.frame,
            points,
            hidden,
            pairs,
            gaps,
            mix,
            shard,
            self.precisions,
            np.float32,
            self.tile_rows,
            self.tile_latents,
        )

    def _place(self, own: Index) -> Index:
        """Where latents come in the block that is read next; any number outside it for others, -1 for no latent."""
        place: Index = np.where(own >= 0, self.latents.place[own] - self.at, -1)
        return place

    def others(self) -> tuple[Sums, Sums, Sums]:
        """Near and far together, [P, A, S], without the parents: estimate, lower and upper bound."""
        estimate, low, high = (_shaped(merge(self.near, far), self.shape) for far in self.far.sums())
        return estimate, low, high

    def scores(self, exact: Sums | None = None) -> BoundedScores:
        """What is known of the candidates now; `exact`, [P, A, S], replaces it where it is not empty."""
        found = []
        for sums in self.others():
            if exact is not None:
                known = exact.total.any(2)
                sums.put(known, exact.of(known))
            found.append(with_parents(self.geometry, sums, self.precisions, len(self.latents.train)))
        estimate, low, high = found
        return BoundedScores(
            estimate.log_lds,
            estimate.log_lds_excluding_parents,
            estimate.parent_share,
            estimate.effective_neighbours,
            low.log_lds,
            high.log_lds,
            low.log_lds_excluding_parents,
            high.log_lds_excluding_parents,
            self.lists.bounded,
        )

    def _near(self, rows: Index, mix: Mix, begin: int, end: int) -> tuple[Sums, Index]:
        """Sums over the near latents at places begin..end-1, and how many there are, for some pairs."""
        sums = Sums.empty(*mix.u.shape, len(self.precisions))
        counts = np.zeros(len(rows), np.int64)
        in_threads(
            _near_compiled.near_sums,
            len(rows),
            self.latents.train,
            self.points,
            self.lists.ids,
            self.own,
            self.pairs[rows, 0],
            self.pairs[rows, 1],
            mix.u,
            mix.v,
            mix.w,
            self.geometry.gaps[rows],
            self.geometry.norms[rows],
            self.precisions,
            self.latents.place,
            begin,
            end,
            sums.base,
            sums.total,
            sums.squares,
            counts,
        )
        return sums, counts

    def _parents_within(self, pairs: Index, begin: int, end: int) -> Index:
        """How many of each pair's parents are latents at places begin..end-1."""
        own = self.own[pairs]
        place = self.latents.place[own]
        inside = (own >= 0) & (place >= begin) & (place < end)
        inside[:, 1] &= pairs[:, 0] != pairs[:, 1]
        count: Index = inside.sum(1)
        return count

    def _least_distance(self) -> Array:
        """Squared distance that no far latent is below, [P, A]: Stewart's theorem, or the triangle inequality."""
        u, v, w = self.geometry.mix.u, self.geometry.mix.v, self.geometry.mix.w
        gap, n_i, n_j = self.geometry.gaps[:, None], self.geometry.norms[:, :1], self.geometry.norms[:, 1:]
        beyond, latents = self.lists.beyond[self.pairs], self.latents
        from_mean = np.sqrt(latents.frame.rows(self.points, np.float32).norms) * latents.frame.scale
        largest = (from_mean[self.pairs] + latents.farthest) ** 2  # no latent is farther from a parent
        # where a list holds every latent, `beyond` is infinite and nothing is far
        with np.errstate(invalid="ignore"):
            square = -u * v * gap
            for share, side in ((u, 0), (v, 1)):
                square = square + share * np.where(share >= 0, beyond[:, [side]], largest[:, [side]])
            least, most = latents.norms
            square += w * (np.where(w >= 0, least, most) - u * n_i - v * n_j)
            # the terms' own rounding: what is left of them may be far smaller
            size = np.abs(u) * largest[:, :1] + np.abs(v) * largest[:, 1:] + np.abs(u * v) * gap + np.abs(w) * most
            square -= 1e-12 * size
            near_i = v * v * gap + w * w * n_i - v * w * (n_j - n_i - gap)
            near_j = u * u * gap + w * w * n_j - u * w * (n_i - n_j - gap)
            for from_parent, side in ((near_i, 0), (near_j, 1)):
                reach = np.sqrt(beyond[:, [side]]) - np.sqrt(np.maximum(from_parent, 0))
                square = np.maximum(square, np.maximum(reach, 0) ** 2 - 1e-12 * size)
        return np.maximum(square, 0.0)


def one_by_one(mix: Mix, which: Index) -> Mix:
    """Candidates `which` of pairs [P, A], each as a pair with one alpha."""
    at = np.divmod(which, mix.u.shape[1])
    return Mix(mix.u[at][:, None], mix.v[at][:, None], mix.w[at][:, None])


def _shaped(sums: Sums, shape: tuple[int, ...]) -> Sums:
    return Sums(sums.base.reshape(shape), sums.total.reshape(shape), sums.squares.reshape(shape))
