"""The inner loops of the near field, compiled by Numba: keeping each row's nearest latents, and summing their weights.

Called through `_compiled.in_threads`: a row or a pair is one thread's work, in one order. Private.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ldsaug_ray.lds._compiled import _EXACT, _SUMS, _bits_as_float32, compiled

CHUNK = 256  # latents whose least gap is compared with the farthest that is kept


def _number(x: Any) -> Any:
    """A float32, or the bits of a bfloat16 as int16, as a float32."""
    raise NotImplementedError  # only compiled code calls it


@overload(_number)
def _number_of_a_type(x: Any) -> Callable[[Any], Any]:
    if x == types.int16:

        def widened(x: Any) -> Any:
            return _bits_as_float32(np.int32(x) << np.int32(16))

        return widened

    def same(x: Any) -> Any:
        return x

    return same


@compiled(**_EXACT)
def keep_nearest(cross, norms, start, gaps, ids, first, last):  # type: ignore[no-untyped-def]
    """Update each row's nearest latents by a tile of inner products; rows `first` to `last`.

    cross: float32[R, K], or the bits of bfloat16 as int16, -FAR where a latent is to be left out; norms: float32[K];
    start: number of the tile's first latent; gaps: float32[R, k] and ids: int64[R, k], a heap of norms - 2 cross with
    the largest in front, inf and -1 where there is none yet.
    """
    two, far = np.float32(2), np.float32(1e30)
    k = gaps.shape[1]
    line = np.empty(CHUNK, np.float32)
    for r in range(first, last):
        heap, names = gaps[r], ids[r]
        for begin in range(0, cross.shape[1], CHUNK):
            size = min(CHUNK, cross.shape[1] - begin)
            least = far
            for c in range(size):
                gap = norms[begin + c] - two * _number(cross[r, begin + c])
                line[c] = gap
                least = gap if gap < least else least
            if least >= heap[0]:
                continue
            for c in range(size):
                gap = line[c]
                if gap >= heap[0] or gap >= far:
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
                heap[at], names[at] = gap, start + begin + c


@compiled(**_SUMS)
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


@compiled(**_SUMS)
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
