"""Sums in which the terms that matter are exact: what makes float32 products do at small sigma.

Long, since the bound, the loops that rest on it and their arrays are read together.

Let g_k be the squared distance of candidate z and latent k as float32 products give it, and e_k a bound on how far it
is off: r sum_i |s_i| (||a_i|| + ||z_k||)^2 for z = sum_i s_i a_i, with r twice the largest rounding of a squared
distance that was found (`_frame.Rounding`; the proof takes r as given). With f = 1 / 2 sigma^2 the true exponents lie
within f e_k of f g_k. Let G = min_k (g_k + e_k), so that the largest weight W is at least exp(-f G), and

    list k where  g_k - e_k <= G + m / f,     m = log K + log(min(1, expm1(2 h)) / TOLERANCE),  h >= f e_k for all k.

The weights of the listed are taken from direct differences in float64, those of the others from g_k. Of a latent that
is not listed both the true weight and the one from g_k are below exp(-m) W, and they differ by at most expm1(h) times
the true one, or simply by exp(-m) W. There are at most K, so that together they are off by at most TOLERANCE of W,
hence of the sum, and so is log LDS. Where h is so large that m is log(K / TOLERANCE) they need not be added at all.
The bound of the sum of squares is the same at 2 f, where weights are squares and W and m are twice as large.

The nearer sigma is to where float32 suffices, the fewer are listed: m falls with h. G only falls from tile to tile,
so that early tiles list more, never less. Which terms one sigma lists depends on no other sigma, and they are added in
the order of the latents.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ldsaug_ray.lds._compiled import (
    _EXACT,
    _SUMS,
    FAR,
    LOG2_E,
    _exp2,
    _flush_as,
    _flush_tiny,
    _wide_vectors,
    in_threads,
)
from ldsaug_ray.lds._frame import EPSILON, Frame, Rounding, Rows

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ROUNDINGS = 2  # of the largest rounding that was found, to be safe from larger ones
TYPICAL, BEYOND = 0.98, 1.5  # latents with a norm beyond 1.5 times this quantile are always listed, and not in h
RUN, LANES = 512, 32  # latents at a time


@njit(**_EXACT)
def _least(x, lows):  # type: ignore[no-untyped-def]
    """min(x), whose length is a multiple of LANES, by vectors: a plain loop would not become one. lows: [LANES]."""
    for lane in range(LANES):
        lows[lane] = x[lane]
    for k in range(LANES, len(x), LANES):
        for lane in range(LANES):
            lows[lane] = x[k + lane] if x[k + lane] < lows[lane] else lows[lane]
    least = lows[0]
    for lane in range(1, LANES):
        least = min(least, lows[lane])
    return least


@njit(**_SUMS)
def _squares(latent, x, y):  # type: ignore[no-untyped-def]
    """Squared distances of a latent to x and to y."""
    to_x = to_y = 0.0
    for t in range(len(x)):
        z = np.float64(latent[t])
        to_x += (z - x[t]) * (z - x[t])
        to_y += (z - y[t]) * (z - y[t])
    return to_x, to_y


@njit(**_EXACT)
def _add(squared, gaps, off, hits, low, factor, limit, exact, total, squares):  # type: ignore[no-untyped-def]
    """Add the weights of the hits that are listed for one candidate and sigma, one after another."""
    for h in range(len(squared)):
        exact[h] = _exp2(factor * (low - squared[h]))
    for h in range(len(squared)):
        if gaps[hits[h]] - off[hits[h]] <= limit:
            total += exact[h]
            squares += exact[h] * exact[h]
    return total, squares


@njit(**_SUMS)
def _others(gaps, off, base, limit, factor):  # type: ignore[no-untyped-def]
    """Sums of weights and of their squares of what is not listed, relative to the weight at `base`."""
    total = squares = gaps.dtype.type(0)
    for k in range(len(gaps)):
        weight = _exp2(factor * (base - gaps[k]))
        weight = weight if gaps[k] - off[k] > limit else gaps.dtype.type(0)
        total += weight
        squares += weight * weight
    return total, squares


@njit(**_EXACT)
def _gaps(x, y, n, m, u, v, w, arc, own_i, own_j, out):  # type: ignore[no-untyped-def]
    """g_k of one candidate; FAR for its parents, and for what pads `out`."""
    two, far, run = np.float32(2), np.float32(FAR), len(n)
    u_, v_, w_ = two * np.float32(u), two * np.float32(v), two * np.float32(w)
    if arc:
        for k in range(run):
            out[k] = n[k] - (u_ * x[k] + v_ * y[k] + w_ * m[k])
    else:
        for k in range(run):
            out[k] = n[k] - (u_ * x[k] + v_ * y[k])
    out[run:] = far
    if 0 <= own_i < run:
        out[own_i] = far
    if 0 <= own_j < run:
        out[own_j] = far


@njit(**_EXACT)
def add_terms(  # type: ignore[no-untyped-def]
    cross, norms, lengths, common, own, i, j, u, v, w, arc, size, rounding, longest, factors, whole, crowd, tolerance,
    fresh, parents, latents, scale, within, ceiling, nearest, base, sums, first, last
):  # fmt: skip
    """Add one tile's weights to sums, float64[4, P, A, S]: of the listed and their squares, of the others and theirs.

    cross, norms, common, own, i, j, u, v, w as in `_compiled.add_combinations`; arc: whether w is not 0; lengths:
    float32[K], norms of the latents; size, rounding: float64[P], largest norm of what z is made of, and r times the
    sum of |shares|; longest: norm up to which latents count into h; whole: bool[S], whether what is not listed is
    added; crowd: K of all tiles; fresh: whether this is the first. parents: float[R, d] and latents: float[K, d] in
    their own coordinates; scale: the frame's; within: float64[P, A], mean squared distance from z of what z is made of.
    ceiling: float32[P, A], G so far. The listed are relative to nearest, float64[P, A], the least of their squared
    distances; the others to base, float32[P, A], a gap.
    """
    _wide_vectors()
    register = _flush_tiny()
    # what one sigma lists must not depend on the rounding of the test for all
    wider, far = np.float32(1.25), np.float32(FAR)
    d, per_square, most = latents.shape[1], 1 / (scale * scale), np.log(crowd / tolerance)
    x_row, y_row = np.empty(d), np.empty(d)
    gaps, limit = np.empty((u.shape[1], RUN), np.float32), np.empty((u.shape[1], len(factors)), np.float32)
    off, slack, lows = np.empty(RUN, np.float32), np.empty(RUN, np.float32), np.empty(LANES, np.float32)
    hits, to_i, to_j, to_origin = np.empty(RUN, np.int64), np.empty(RUN), np.empty(RUN), np.zeros(RUN)
    # the first tile is gone through for G alone at first, so that it does not list much too many
    turns = [(1, start) for start in range(0, cross.shape[1], RUN)]
    if fresh:
        turns = [(0, start) for _, start in turns] + turns
    squared, exact, margins = np.empty(RUN), np.empty(RUN), np.empty(len(factors))
    for turn, start in turns:
        run = min(RUN, cross.shape[1] - start)
        padded = LANES * ((run + LANES - 1) // LANES)
        n, m, t = norms[start : start + run], common[start : start + run], lengths[start : start + run]
        for p in range(first, last):
            x, y = cross[i[p], start : start + run], cross[j[p], start : start + run]
            own_i, own_j = own[i[p]] - start, own[j[p]] - start
            here, share = np.float32(size[p]), np.float32(rounding[p])
            for k in range(run):
                off[k] = share * (here + t[k]) * (here + t[k])
                slack[k] = far
            # the roundings of what lies within `longest` differ little from the largest: one will do for G
            highest = share * (here + longest) * (here + longest)
            for s in range(len(factors)):
                growth = np.expm1(min(2 * factors[s] * rounding[p] * (size[p] + longest) ** 2, 1.0))
                margin = max(most + np.log(growth), 0.0) if whole[s] and 0 < growth < 1 else most
                margins[s] = margin / factors[s]
            for a in range(u.shape[1]):
                one = gaps[a]
                _gaps(x, y, n, m, u[p, a], v[p, a], w[p, a], arc, own_i, own_j, one[:padded])
                least = _least(one[:padded], lows)
                ceiling[p, a] = min(ceiling[p, a], least + highest)
                if turn == 0:
                    continue
                for s in range(len(factors)):
                    limit[a, s] = ceiling[p, a] + np.float32(margins[s])
                widest = limit[a].max()
                for k in range(run):
                    gap = one[k] - widest
                    slack[k] = gap if gap < slack[k] else slack[k]
                if ceiling[p, a] < base[p, a]:
                    for s in range(len(factors)):
                        shrink = _exp2(factors[s] * LOG2_E * (np.float64(ceiling[p, a]) - np.float64(base[p, a])))
                        sums[2, p, a, s] *= shrink
                        sums[3, p, a, s] *= shrink * shrink
                    base[p, a] = ceiling[p, a]
            if turn == 0:
                continue
            count = 0
            for k in range(run):
                if slack[k] <= wider * off[k] and k != own_i and k != own_j:
                    hits[count] = k
                    count += 1
            for a in range(u.shape[1]):
                least = _least(gaps[a, :padded], lows)
                for s in range(len(factors)):
                    if whole[s] and factors[s] * (least - ceiling[p, a]) < most:
                        factor = np.float32(factors[s] * LOG2_E)
                        found = _others(gaps[a, :run], off[:run], base[p, a], limit[a, s], factor)
                        sums[2, p, a, s] += found[0]
                        sums[3, p, a, s] += found[1]
            if count == 0:
                continue
            for k in range(d):
                x_row[k], y_row[k] = parents[i[p], k], parents[j[p], k]
            for h in range(count):
                latent = latents[start + hits[h]]
                near = _squares(latent, x_row, y_row)
                to_i[h], to_j[h] = near[0] * per_square, near[1] * per_square
                if arc:
                    to_origin[h] = _squares(latent, np.zeros(d), x_row)[0] * per_square
            for a in range(u.shape[1]):
                shares = u[p, a], v[p, a], w[p, a], within[p, a]
                low = nearest[p, a]
                for h in range(count):
                    squared[h] = shares[0] * to_i[h] + shares[1] * to_j[h] + shares[2] * to_origin[h] - shares[3]
                    low = min(low, squared[h])
                for s in range(len(factors)):
                    c = factors[s] * LOG2_E
                    shrink = _exp2(c * (low - nearest[p, a])) if low < nearest[p, a] else 1.0
                    sums[0, p, a, s], sums[1, p, a, s] = _add(
                        squared[:count], gaps[a], off, hits, low, c, limit[a, s], exact,
                        sums[0, p, a, s] * shrink, sums[1, p, a, s] * shrink * shrink
                    )  # fmt: skip
                nearest[p, a] = low
    _flush_as(register)


class ExactTerms:
    """The sums of some pairs, as the tiles come; arrays [P, ...] in the order in which the pairs are given."""

    def __init__(
        self,
        rows: Rows,
        parents: NDArray[np.floating],  # [R, d] the same in their own coordinates
        i: Index,  # [P] rows
        j: Index,
        gaps: Array,  # [P] in the frame
        shares: tuple[Array, Array, Array],  # u, v, w: [P, A]
        frame: Frame,
        factors: Array,  # [S] 1 / 2 sigma^2 in the frame
        whole: NDArray[np.bool_],  # [S] whether what is not listed is added: float32 must do for it
        rounding: Rounding,
        tolerance: float,
    ) -> None:
        u, v, w = (np.ascontiguousarray(share) for share in shares)
        self.i, self.j, self.shares, self.parents, self.frame = i, j, (u, v, w), parents, frame
        self.factors, self.whole, self.tolerance = factors, whole, tolerance
        n_i, n_j, along_i, along_j = (x[:, None] for x in (rows.norms[i], rows.norms[j], rows.along[i], rows.along[j]))
        product = (n_i + n_j - gaps[:, None]) / 2
        norm = u * u * n_i + v * v * n_j + w * w * frame.origin_norm
        self.norm = norm + 2 * (u * v * product + w * (u * along_i + v * along_j)) + frame.mean_norm
        from_i, from_j = (n + frame.origin_norm - 2 * along for n, along in ((n_i, along_i), (n_j, along_j)))
        self.within = u * v * gaps[:, None] + w * (u * from_i + v * from_j)
        self.size = np.sqrt(np.maximum(n_i, n_j)[:, 0])
        if w.any():
            self.size = np.maximum(self.size, math.sqrt(frame.origin_norm))
        self.rounding = largest_rounding(rounding) * (np.abs(u) + np.abs(v) + np.abs(w)).max(1, initial=0.0)
        self.ceiling, self.base = np.full((2, *u.shape), FAR, np.float32)
        self.nearest = np.full(u.shape, np.inf)
        self.seen = 0
        self.sums = np.zeros((4, *u.shape, len(factors)))

    def add(
        self,
        cross: NDArray[np.float32],
        tile: Rows,
        latents: NDArray[np.floating],
        own: Index,
        crowd: int,
        common: NDArray[np.float32] | None = None,
    ) -> None:
        """Take in one tile of `crowd` latents, float[K, d], with its inner products [R, K]; see the loops."""
        norms, lengths = tile.norms_from(self.frame.mean_norm), np.sqrt(tile.norms).astype(np.float32)
        longest = min(lengths.max(), np.float32(BEYOND * np.quantile(lengths, TYPICAL)))
        outlying = lengths > longest  # their gap is far, and off by more
        norms[outlying], lengths[outlying] = FAR, np.sqrt(FAR) * 1e10
        in_threads(
            add_terms,
            len(self.i),
            cross,
            norms,
            lengths,
            lengths if common is None else common,
            own,
            self.i,
            self.j,
            *self.shares,
            common is not None,
            self.size,
            self.rounding,
            longest,
            self.factors,
            self.whole,
            crowd,
            self.tolerance,
            self.seen == 0,
            self.parents,
            np.ascontiguousarray(latents),
            self.frame.scale,
            self.within,
            self.ceiling,
            self.nearest,
            self.base,
            self.sums,
        )
        self.seen += len(latents)

    def result(self) -> tuple[Array, Array, Array]:
        """base, total and squares as in `_kernel.Sums`, [P, A, S]."""
        listed, squares, others, other_squares = self.sums
        base = self.nearest[..., None] * self.factors
        with np.errstate(invalid="ignore"):
            rise = np.exp(np.minimum(base - (self.norm + self.base)[..., None] * self.factors, 700.0))
        rise = np.where(others > 0, rise, 0.0)
        return base, listed + others * rise, squares + other_squares * rise**2


def largest_rounding(rounding: Rounding) -> float:
    """How far a squared distance of float32 may be off, relative to (||a|| + ||b||)^2."""
    return ROUNDINGS * (rounding.most + EPSILON)
