"""Confidence bounds for a sum over latents of which a random part has been read. Private.

One candidate's far field: M latents with weights w_k in 0..b, of which n have been read in random order without
replacement, in blocks. Wanted is F, the sum of all M, from the blocks' sums and sums of squares alone, at any time.

Take a block of B weights drawn from what was unread, whose mean is m, and numbers x and c that were fixed before it was
read. With f(t) = -log(1 - t) - t and any s with w_k - c >= -s (below) or w_k - c <= s (above), both

    exp(sum over the block of  x (w_k - m) - f(x s) (w_k - c)^2 / s^2)    s = c        (below)
    exp(sum over the block of  x (m - w_k) - f(x s) (w_k - c)^2 / s^2)    s = b        (above)

have expectation at most 1. For draws with replacement: (log(1 + y) - y) / y^2 increases in y, so y = x (w - c) >= -x s
gives exp(y - f(x s) (w - c)^2 / s^2) <= 1 + y, whose expectation is at most exp(x (m - c)) (Fan, Grama and Liu 2015;
Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement", 2020). For draws without: the exponent
is a sum of one function of each draw, and Hoeffding (1963, theorem 4) bounds the expectation of a convex function of
such a sum by that with replacement. The products over the blocks are supermartingales from 1, so by Ville's inequality
none ever exceeds 1 / delta, with probability 1 - delta, however often one looks. As m = (F - sum read before) / (number
unread before), each is a linear inequality in F.

Against an inequality for a fixed n (Bardenet and Maillard 2015, theorem 4.3) this needs no union over the looks and has
about a tenth of its term in b; the bound from below does not need b at all. The best x is sqrt(2 log(1/delta) / n
variance), so it is taken for some horizons, numbers n that may have been read in the end, and the best bound kept.

The blocks' sums carry a rounding error of at most ROUNDING, which is on the safe side in every bound.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.lds._kernel import LIMIT, Sums, merge

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ROUNDING = LIMIT  # relative, of a block's sum: the engine does again in float64 what may be off by more
STEEPEST_BELOW, STEEPEST_ABOVE = 0.5, 0.75  # x s; f grows without limit at 1
TINY = 1e-300  # of b: what of a weight may be lost below float64's range where b is very loose
TOLERATED = 0.1  # of log 1/delta: what rounding of near weights in a block may cost; else it is left out of the bounds


class FarField:
    """The far fields of C candidates at S bandwidths, as they are read. Weights are in units of their bound b."""

    def __init__(
        self, reference: Array, population: Index, delta: float, horizons: Array, bounded: bool = True
    ) -> None:
        """reference: float64[C, S], -log b; population: int64[C], M; delta: what one end of an interval may fail with;
        horizons: float64[H]; bounded: whether b is certain, so that larger weights can only be rounding.
        """
        self.reference, self.population = reference, population
        self.horizons = horizons.reshape(-1, 1, 1)
        self.log_term = math.log(len(horizons) / delta)
        self.largest = 1.0 if bounded else 1e250
        self.bounded = bounded
        self.read = np.zeros(len(population), np.int64)
        self.seen = Sums.empty(*reference.shape)  # what was read, by itself: b may be too loose for its units
        self.least, self.most, self.squares = np.zeros((3, *reference.shape))  # of what was read
        self.low = np.zeros(reference.shape)
        self.high = np.repeat(population[:, None].astype(np.float64), reference.shape[1], axis=1)
        # (below, above) x horizons: the inequalities slope * F >= evidence - log_term, <= evidence + log_term
        self.slope, self.evidence = np.zeros((2, 2, len(horizons), *reference.shape))

    def add(self, which: Index, block: Sums, near: Sums, n: Index) -> None:
        """Take in a block of candidates `which`, [c].

        block: [c, S], over all latents of the block but parents; near: those of them that belong to the near field, to
        be taken out; n: int64[c], how many are left.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # where near weights are beyond any far one
            self._add(which, block, near, n)

    def _add(self, which: Index, block: Sums, near: Sums, n: Index) -> None:
        total, slack, squares, near_total, near_squares = self._far_part(which, block, near, n)
        self.seen.put(which, merge(self.seen.of(which), _less(block, near, n)))
        n_ = n[:, None].astype(np.float64)
        before = self.read[which, None].astype(np.float64)
        unread = np.maximum(self.population[which, None] - before, 1.0)
        seen = np.maximum(before, 1.0)
        mean = (self.least[which] + self.most[which]) / (2 * seen)
        variance = np.maximum(self.squares[which] / seen - mean**2, 0) + 0.1 / seen
        slack += TINY * n_
        below, above = np.maximum(total - slack, 0), np.minimum(total + slack, n_ * self.largest)
        most_squares = np.minimum(squares + 2 * ROUNDING * (squares + near_squares), above * self.largest)
        spread = np.maximum(most_squares - 2 * mean * below + n_ * mean**2, 0)
        steep = np.sqrt(2 * self.log_term / (variance * self.horizons))
        steep *= before > 0  # nothing is known before the first block: it only teaches
        for side, (read, limit) in enumerate(((below, STEEPEST_BELOW), (above, STEEPEST_ABOVE))):
            s = mean if side == 0 else np.ones_like(mean)
            x = np.minimum(steep, limit / np.maximum(s, 1e-300))
            spoilt = ROUNDING * (x * near_total + x**2 * near_squares) > TOLERATED * self.log_term
            x = np.where(spoilt, 0.0, x)
            known = self.least[which] if side == 0 else self.most[which]
            slope = x * n_ / unread
            charge = _charge(x, s) * spread
            self.slope[side][:, which] += slope
            self.evidence[side][:, which] += x * read + slope * known + (-charge if side == 0 else charge)
        self.read[which] += n
        self.least[which] += below
        self.most[which] += above
        self.squares[which] += squares
        self._tighten(which)

    def _far_part(self, which: Index, block: Sums, near: Sums, n: Index) -> tuple[Array, Array, Array, Array, Array]:
        """In units of b: far sum, how far it may be off, sum of squares; sum and sum of squares of the near weights."""
        taken, taken_squares = _in_units_of(block, near)
        n_ = n[:, None]
        unit = np.exp(np.minimum(self.reference[which] - block.base, 300))
        total = np.clip((block.total - taken) * unit, 0, n_ * self.largest)
        slack = ROUNDING * np.maximum(block.total, taken) * unit * (n_ > 0)
        squares = np.clip((block.squares - taken_squares) * unit**2, 0, total * self.largest)
        return total, slack, squares, taken * unit, taken_squares * unit**2

    def _tighten(self, which: Index) -> None:
        left = (self.population[which] - self.read[which])[:, None]
        low, high = self.least[which], self.most[which] + left
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds_low = (self.evidence[0][:, which] - self.log_term) / self.slope[0][:, which]
            bounds_high = (self.evidence[1][:, which] + self.log_term) / self.slope[1][:, which]
        low = np.maximum(low, np.nan_to_num(bounds_low, nan=0.0, neginf=0.0, posinf=0.0).max(0))
        high = np.minimum(high, np.where(self.slope[1][:, which] > 0, bounds_high, np.inf).min(0))
        self.low[which] = np.maximum(self.low[which], low)
        self.high[which] = np.minimum(self.high[which], high)
        self.high[which] = np.maximum(self.high[which], self.low[which])
        done = np.flatnonzero(left[:, 0] <= 0)  # known; and bounds that were not certain may have missed it
        self.low[which[done]], self.high[which[done]] = self.least[which[done]], self.most[which[done]]

    def sums(self) -> tuple[Sums, Sums, Sums]:
        """Estimate, lower and upper bound of the far sums, [C, S].

        The estimate is unbiased but for being kept inside the bounds that are certain. Only it has a sum of squares
        that means something.
        """
        share = (self.population / np.maximum(self.read, 1))[:, None]
        some = self.seen.total > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            base = np.where(some, self.seen.base - np.log(self.seen.total * share), np.inf)
            squares = np.where(some, np.minimum(self.seen.squares / self.seen.total**2 / share, 1.0), 0.0)
        low, high = self._as_sums(self.low, self.low**2), self._as_sums(self.high, self.high**2)
        if self.bounded:
            base = np.maximum(base, high.base)
        else:  # it would be the bias of what the index missed
            most = np.minimum(high.base, base)
            high = Sums(most, (most < np.inf).astype(np.float64), high.squares)
        base = np.minimum(base, low.base)
        return Sums(base, (base < np.inf).astype(np.float64), squares), low, high

    def _as_sums(self, total: Array, squares: Array) -> Sums:
        """Relative to the whole sum, so that it does not vanish beside others however loose b was."""
        some = total > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            base = np.where(some, self.reference - np.log(total), np.inf)
            share = np.where(some, np.minimum(squares / total**2, 1.0), 0.0)  # no more than one weight would give
        return Sums(base, some.astype(np.float64), np.nan_to_num(share, nan=1.0))


def _in_units_of(block: Sums, near: Sums) -> tuple[Array, Array]:
    """Sum and sum of squares of the near weights, relative to the block's exponent."""
    shift = np.where(near.total > 0, np.exp(np.minimum(block.base - near.base, 300)), 0.0)
    return near.total * shift, near.squares * shift**2


def _less(block: Sums, near: Sums, n: Index) -> Sums:
    """The block without its near weights; nothing where n, what is left, is 0."""
    taken, taken_squares = _in_units_of(block, near)
    some = n[:, None] > 0
    total = np.where(some, np.maximum(block.total - taken, 0.0), 0.0)
    squares = np.where(some, np.clip(block.squares - taken_squares, 0.0, total**2), 0.0)
    return Sums(np.where(total > 0, block.base, np.inf), total, squares)


def _charge(x: Array, s: Array) -> Array:
    """f(x s) / s^2, by its series where x s is small: x^2/2 + x^3 s/3 + x^4 s^2 / 4 ..."""
    t = x * s
    series = x**2 * (0.5 + t / 3 + t**2 / 4 + t**3 / 5)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = (-np.log1p(-t) - t) / s**2
    return np.where(t < 1e-2, series * (1 + t**4), exact)
