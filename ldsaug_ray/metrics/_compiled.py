"""Inner loops of the neighbour measures, compiled by Numba; called through `lds._compiled.in_threads`. Private.

A squared distance is taken here in one way only, in one order of additions and without contraction. So the same two
rows give the same bits wherever they meet, and a point that lies on a sphere, because it is a copy of the point that
gives the radius, is found on it and not by chance inside or outside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ldsaug_ray.lds._compiled import kept

_STRICT: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@kept(**_STRICT)
def square(x, i, y, j):  # type: ignore[no-untyped-def]
    """||x[i] - y[j]||^2 in float64."""
    a = b = c = d = 0.0
    width = x.shape[1]
    whole = width - width % 4
    for k in range(0, whole, 4):
        p = np.float64(x[i, k]) - np.float64(y[j, k])
        q = np.float64(x[i, k + 1]) - np.float64(y[j, k + 1])
        r = np.float64(x[i, k + 2]) - np.float64(y[j, k + 2])
        s = np.float64(x[i, k + 3]) - np.float64(y[j, k + 3])
        a += p * p
        b += q * q
        c += r * r
        d += s * s
    for k in range(whole, width):
        p = np.float64(x[i, k]) - np.float64(y[j, k])
        a += p * p
    return (a + b) + (c + d)


@kept(**_STRICT)
def squares(points, queries, ids, out, first, last):  # type: ignore[no-untyped-def]
    """out[q, t] = ||points[ids[q, t]] - queries[q]||^2, inf where the id is negative; queries `first` to `last`."""
    for q in range(first, last):
        for t in range(ids.shape[1]):
            out[q, t] = square(points, ids[q, t], queries, q) if ids[q, t] >= 0 else np.inf


@kept(**_STRICT)
def nearest_of_all(points, queries, own, rows, ids, out, first, last):  # type: ignore[no-untyped-def]
    """ids, out [R, k]: the nearest points of queries rows[r], by (distance, number), without own[rows[r]]."""
    k = ids.shape[1]
    for r in range(first, last):
        q = rows[r]
        out[r, :] = np.inf
        ids[r, :] = -1
        for p in range(len(points)):
            if p == own[q]:
                continue
            found = square(points, p, queries, q)
            if found >= out[r, k - 1]:
                continue  # of equals, the first number stays
            at = k - 1
            while at > 0 and out[r, at - 1] > found:
                out[r, at], ids[r, at] = out[r, at - 1], ids[r, at - 1]
                at -= 1
            out[r, at], ids[r, at] = found, p


@kept(**_STRICT)
def count_in_balls(  # type: ignore[no-untyped-def]
    cross,
    real,
    fake,
    start_real,
    start_fake,
    norms_real,
    norms_fake,
    sizes_real,
    sizes_fake,
    relative,
    unit,
    balls_real,
    balls_fake,
    real_balls,
    covered,
    recalled,
    first,
    last,
):
    """Which fakes lie in which reals' balls and the reverse, for one tile; fakes `first` to `last` of it.

    cross: float32[F, R] inner products of centred fakes and reals; real, fake: the features themselves, from rows
    start_real and start_fake on; norms_*: their centred squared norms, sizes_*: the roots; relative: how far 2 cross
    may be off, in units of the product of the sizes; unit: squared distances of the features over those of the frame;
    balls_*: float64 squared radii of the tile's rows. Adds to real_balls int64[F], how many reals' balls hold a fake;
    sets covered bool[R], whether a real's ball holds a fake, and recalled bool[R], whether a fake's ball holds the
    real. A pair within the error of a radius is decided by `square`.
    """
    for f in range(first, last):
        inside = 0
        ball = balls_fake[f]
        for r in range(cross.shape[1]):
            gap = norms_fake[f] + norms_real[r] - 2.0 * np.float64(cross[f, r])
            off = relative * sizes_fake[f] * sizes_real[r]
            low, high = (gap - off) * unit, (gap + off) * unit
            if low >= balls_real[r] and low >= ball:
                continue
            if (low < balls_real[r] <= high) or (low < ball <= high):
                low = high = square(real, start_real + r, fake, start_fake + f)
            if high < balls_real[r]:
                inside += 1
                covered[r] = True
            if high < ball:
                recalled[r] = True
        real_balls[f] += inside
