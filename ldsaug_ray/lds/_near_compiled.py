"""The inner loops of the near field, compiled by Numba: keeping each row's nearest latents, and summing their weights.

Called through `_compiled.in_threads`: a row or a pair is one thread's work, in one order. Private.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ldsaug_ray.lds._compiled import _EXACT, _SUMS


@njit(**_EXACT)
def keep_nearest(cross, norms, start, gaps, ids, first, last):  # type: ignore[no-untyped-def]
    """Update each row's nearest latents by a tile of inner products; rows `first` to `last`.

    cross: float32[R, K], -FAR where a latent is to be left out; norms: float32[K]; start: number of the tile's first
    latent; gaps: float32[R, k] and ids: int64[R, k], a heap of norms - 2 cross with the largest in front, inf and -1
    where there is none yet.
    """
    two = np.float32(2)
    k = gaps.shape[1]
    for r in range(first, last):
        heap, names = gaps[r], ids[r]
        for c in range(cross.shape[1]):
            gap = norms[c] - two * cross[r, c]
            if gap >= heap[0] or gap > np.float32(1e30):
                continue
            at = 0
            while True:  # sift the new one down from the front
                child = 2 * at + 1
                if child >= k:
                    break
                if child + 1 < k and heap[child + 1] > heap[child]:
                    child += 1
                if heap[child] <= gap:
                    break
                heap[at], names[at] = heap[child], names[child]
                at = child
            heap[at], names[at] = gap, start + c


@njit(**_SUMS)
def squared_distances(train, ids, points, out, first, last):  # type: ignore[no-untyped-def]
    """out[r, t] = ||train[ids[r, t]] - points[r]||^2 in float64, inf where the id is negative."""
    for r in range(first, last):
        for t in range(ids.shape[1]):
            square = np.inf
            if ids[r, t] >= 0:
                square = 0.0
                for c in range(train.shape[1]):
                    x = np.float64(train[ids[r, t], c]) - np.float64(points[r, c])
                    square += x * x
            out[r, t] = square


@njit(**_SUMS)
def near_sums(  # type: ignore[no-untyped-def]
    train,
    points,
    ids,
    own,
    i,
    j,
    u,
    v,
    w,
    gaps,
    norms,
    factors,
    place,
    begin,
    end,
    base,
    total,
    squares,
    count,
    first,
    last,
):
    """Weights of the latents in either list of a pair, but the parents, at z = u z_i + v z_j; pairs `first` to `last`.

    train: float[N, d]; points: float[R, d] rows with their lists ids: int64[R, k] (-1: none) and own numbers, int64[R];
    i, j: int64[P] rows; u, v, w: float64[P, A], gaps: float64[P], norms: float64[P, 2]: see `exact.Geometry`; factors:
    float64[S], 1 / 2 sigma^2; place: int64[N], of which only latents within begin..end-1 count. Fills base, total,
    squares, float64[P, A, S] (`_kernel.Sums`), and count, int64[P], from direct differences in float64.
    """
    k = ids.shape[1]
    near = np.empty((3, 2 * k))  # squared distances from z_i, z_j, and the origin
    for p in range(first, last):
        rows = (i[p], j[p])
        n = 0
        for side in range(1 if i[p] == j[p] else 2):
            for t in range(k):
                x = ids[rows[side], t]
                if x < 0 or place[x] < begin or place[x] >= end or x == own[i[p]] or x == own[j[p]]:
                    continue
                if side == 1 and (ids[i[p]] == x).any():
                    continue
                from_i = from_j = square = 0.0
                for c in range(train.shape[1]):
                    value = np.float64(train[x, c])
                    a, b = value - np.float64(points[i[p], c]), value - np.float64(points[j[p], c])
                    from_i += a * a
                    from_j += b * b
                    square += value * value
                near[0, n], near[1, n], near[2, n] = from_i, from_j, square
                n += 1
        count[p] = n
        for a in range(u.shape[1]):
            x, y, o = u[p, a], v[p, a], w[p, a]
            shift = x * y * gaps[p] + o * (x * norms[p, 0] + y * norms[p, 1])
            least = np.inf
            for t in range(n):
                distance = x * near[0, t] + y * near[1, t] + o * near[2, t] - shift
                least = min(least, max(distance, 0.0))
            for s in range(len(factors)):
                base[p, a, s] = least * factors[s] if n else np.inf
                sum_, sum_of_squares = 0.0, 0.0
                for t in range(n):
                    distance = x * near[0, t] + y * near[1, t] + o * near[2, t] - shift
                    weight = np.exp(factors[s] * (least - max(distance, 0.0)))
                    sum_ += weight
                    sum_of_squares += weight * weight
                total[p, a, s], squares[p, a, s] = sum_, sum_of_squares
