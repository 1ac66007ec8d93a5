"""The inner loop at small sigma: of each candidate the few latents that can matter, at exact distances. Private.

Let g_k be the squared distance of candidate z and latent k as float32 products give it, less what is the same for all
k, and e a bound on how far any is off: r sum_i |s_i| (||a_i|| + max_k ||z_k||)^2 for z = sum_i s_i a_i, with r twice
the largest rounding of a squared distance that was found (`_frame.Rounding`; the proof takes r as given). With
f = 1 / 2 sigma^2 the largest weight W is at least exp(-f G), G = min_k g_k + e, and

    latent k is listed where  g_k - e <= G + m / f,     m = log(K / TOLERANCE).

A weight that is not listed is below exp(-m) W, and there are at most K: together they are below TOLERANCE of the sum,
and so is log LDS; of the sum of squares even less is missing. G only falls from tile to tile, so that early tiles list
more, never less. What one sigma lists depends on no other sigma, and is added in the order of the latents.
"""

from __future__ import annotations

import numpy as np

from ldsaug_ray.lds._compiled import _EXACT, _SUMS, FAR, LOG2_E, _exp2, _wide_vectors, compiled

RUN, LANES = 512, 8  # latents at a time, which stay in the second-level cache, and in a vector
NOWHERE = 1e300  # a squared distance whose weight is nothing
_LEAST = {**_EXACT, "fastmath": {"nnan", "nsz"}}  # without which it would not be taken by vectors


@compiled(**_LEAST, forceinline=True)
def _least(x, size, least):  # type: ignore[no-untyped-def]
    """The least of `least` and x[:size]."""
    for k in range(size):
        least = x[k] if x[k] < least else least
    return least


@compiled(**_SUMS, forceinline=True)
def _squares(latent, x, y):  # type: ignore[no-untyped-def]
    """Squared distances of a latent to x and to y, in float64."""
    to_x = to_y = 0.0
    for t in range(len(x)):
        z = np.float64(latent[t])
        to_x += (z - x[t]) * (z - x[t])
        to_y += (z - y[t]) * (z - y[t])
    return to_x, to_y


@compiled(**_SUMS, forceinline=True)
def _weights(squared, size, low, factor):  # type: ignore[no-untyped-def]
    """Sums of the first `size` weights and of their squares, relative to the weight at `low`."""
    total = squares = 0.0
    for h in range(size):
        weight = _exp2(factor * (low - squared[h]))
        total += weight
        squares += weight * weight
    return total, squares


@compiled(**_EXACT)
def add_terms(  # type: ignore[no-untyped-def]
    cross, norms, common, own, i, j, u, v, w, within, off, factors, margin, parents, latents, scale,
    ceiling, nearest, total, squares, first, last
):  # fmt: skip
    """Add one tile's weights of pairs `first` to `last` to total and squares, float64[P, A, S], relative to `nearest`.

    cross, norms, common, own, i, j, u, v, w as in `_compiled.add_combinations`, float32; within: float64[P, A], mean
    squared distance from z of what z is made of; off: float32[P], e; margin: m; parents: float[R, d] and latents:
    float[K, d] in their own coordinates; scale: the frame's. ceiling: float32[P, A], G so far; nearest: float64[P, A],
    the least squared distance so far.
    """
    _wide_vectors()
    two, far, d, per_square = np.float32(2), np.float32(FAR), latents.shape[1], 1 / (scale * scale)
    arc, widest = bool((w != 0).any()), np.float32(margin / factors.min())
    origin, x_row, y_row = np.zeros(d), np.empty(d), np.empty(d)
    n, beyond, gaps = np.empty(RUN, np.float32), np.empty(RUN, np.float32), np.empty((u.shape[1], RUN), np.float32)
    hits, hit_gaps = np.empty(RUN + 1, np.int64), np.empty((u.shape[1], RUN), np.float32)
    to_i, to_j, to_origin, squared, listed = np.empty((5, RUN + LANES))
    for start in range(0, cross.shape[1], RUN):
        run = min(RUN, cross.shape[1] - start)
        m = common[start : start + run]
        for p in range(first, last):
            x, y = cross[i[p], start : start + run], cross[j[p], start : start + run]
            for k in range(run):
                n[k], beyond[k] = norms[start + k], far
            for side in (own[i[p]] - start, own[j[p]] - start):
                if 0 <= side < run:
                    n[side] = far
            some = False
            for a in range(u.shape[1]):
                gap = gaps[a]
                u_, v_, w_ = two * np.float32(u[p, a]), two * np.float32(v[p, a]), two * np.float32(w[p, a])
                if arc:
                    for k in range(run):
                        gap[k] = n[k] - (u_ * x[k] + v_ * y[k] + w_ * m[k])
                else:
                    for k in range(run):
                        gap[k] = n[k] - (u_ * x[k] + v_ * y[k])
                least = _least(gap, run, far)
                ceiling[p, a] = min(ceiling[p, a], least + off[p])
                limit = ceiling[p, a] + (off[p] + widest)
                if least <= limit < far:
                    some = True
                    for k in range(run):
                        beyond[k] = min(beyond[k], gap[k] - limit)
            if not some:
                continue
            count = 0
            for k in range(run):
                hits[count] = k
                count += beyond[k] <= 0
            for t in range(d):
                x_row[t], y_row[t] = parents[i[p], t], parents[j[p], t]
            for h in range(count):
                latent = latents[start + hits[h]]
                near = _squares(latent, x_row, y_row)
                to_i[h], to_j[h] = near[0] * per_square, near[1] * per_square
                if arc:
                    to_origin[h] = _squares(latent, origin, origin)[0] * per_square
                for a in range(u.shape[1]):
                    hit_gaps[a, h] = gaps[a, hits[h]]
            for a in range(u.shape[1]):
                for h in range(count):
                    squared[h] = u[p, a] * to_i[h] + v[p, a] * to_j[h] - within[p, a]
                if arc:
                    for h in range(count):
                        squared[h] += w[p, a] * to_origin[h]
                low = _least(squared, count, nearest[p, a])
                for s in range(len(factors)):
                    limit = ceiling[p, a] + (off[p] + np.float32(margin / factors[s]))
                    size = 0
                    for h in range(count):
                        listed[size] = squared[h]
                        size += hit_gaps[a, h] <= limit
                    if size == 0:
                        continue  # then the nearest is no other either
                    while size % LANES:
                        listed[size] = NOWHERE
                        size += 1
                    c = factors[s] * LOG2_E
                    shrink = _exp2(c * (low - nearest[p, a])) if low < nearest[p, a] else 1.0
                    found = _weights(listed, size, low, c)
                    total[p, a, s] = total[p, a, s] * shrink + found[0]
                    squares[p, a, s] = squares[p, a, s] * shrink * shrink + found[1]
                nearest[p, a] = low
