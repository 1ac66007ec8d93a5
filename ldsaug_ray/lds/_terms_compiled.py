"""The inner loop at small sigma: of each candidate the latents that matter, the heaviest at exact distances. Private.

Let g_k be the squared distance of candidate z and latent k as float32 products give it, less what is the same for all
k. For z = sum_i s_i a_i it is off by at most r sum_i |s_i| (||a_i|| + ||z_k||)^2, with r twice the largest rounding of
a squared distance that was found (`_frame.Rounding`; the proof takes r as given), which is at most e + b_k,

    e = 2 r S (max_i ||a_i||^2 + M),     b_k = 2 r S max(0, ||z_k||^2 - M),     S = sum_i |s_i|,

for any M; it is the latents' typical squared norm, so that b_k is what a latent far out is off by beyond the others.
With f = 1 / 2 sigma^2 the largest weight W is at least exp(-f (G + e)), G = min_k (g_k + b_k), and

    latent k is listed where  g_k - e - b_k <= G + e + m / f,     m = log(K / TOLERANCE).

A weight that is not listed is below exp(-m) W, and there are at most K: together they are below TOLERANCE of the sum,
and so is log LDS; of the sum of squares even less is missing. G only falls from tile to tile, so that early tiles list
more, never less.

Were every weight off by a share h, as f times the rounding of its distance, the sum would be off by h: so weights that
make up a share t of it may stay as float32 gives them where t h is within what float32 sums may be off. A limit between
G and the list's end, found by bisection, parts them from the heavier ones, whose distances are taken again by
differences in float64: few where sigma is small, since then a few weights are nearly the whole sum. Where e, or b_k of
one that is listed, is beyond ROUGH, float32 does not tell which are heavy, and all that are listed are taken again.

What one sigma lists and takes again depends on no other sigma, and is added in the order of the latents.
"""

from __future__ import annotations

import numpy as np

from ldsaug_ray.lds._compiled import _SUMS, FAR, LOG2_E, _exp2, _lesser, _wide_vectors, compiled

ROUGH = 0.5  # of an exponent: up to which float32 tells which weights are heavy
BISECTIONS = 7  # of the list's depth: to a sixth of a nat


@compiled(**_SUMS, forceinline=True)
def _products(latent, x, step):  # type: ignore[no-untyped-def]
    """||latent - x||^2 and <latent - x, step> in float64."""
    _wide_vectors()
    square = product = 0.0
    for t in range(len(x)):
        gap = np.float64(latent[t]) - x[t]
        square += gap * gap
        product += gap * step[t]
    return square, product


@compiled(**_SUMS)
def add_terms(  # type: ignore[no-untyped-def]
    cross, norms, outlying, common, own, i, j, u, v, w, arc, off, shares, stays, factors, margin, parents,
    parent_norms, latents, origin_norm, typical_norm, scale, least, base, total, squares, left, first, last
):  # fmt: skip
    """Add one tile's weights of pairs `first` to `last` to total and squares, float64[P, A, S], relative to `base`.

    cross, norms, common, own, i, j, u, v, w as in `_compiled.add_combinations`, float32, norms less typical_norm; arc:
    whether any of w is not 0; outlying: float32[K], b_k / S; off, shares: float32[P], e and S; stays: f (e + b_k) times
    the share of a sum that may stay in float32; margin: m; parents: float[R, d] and latents: float[K, d] in their own
    coordinates; parent_norms: float64[R]; origin_norm, scale: the frame's.
    Go on from tile to tile: least, float32[P, A], G; base, float64[P, A, S], a squared distance near the least, less
    the candidate's and the typical squared norm; left, float64[P, A, S], f (e + b_k) times the part of total that
    stays in float32.
    """
    _wide_vectors()
    nothing, two, three, far = np.float32(0), np.float32(2), np.float32(3), np.float32(FAR)
    d, per_square = latents.shape[1], 1 / (scale * scale)
    smallest = factors[0]
    for factor in factors:
        smallest = min(smallest, factor)
    widest = np.float32(margin / smallest)
    x, y, z, slack, beyond, hit_x, hit_y, hit_z, hit_slack, listed, weights = np.empty((11, cross.shape[1]), np.float32)
    gaps, limits = np.empty((u.shape[1], len(x)), np.float32), np.empty((u.shape[1], len(factors)), np.float32)
    rough = np.empty((u.shape[1], len(factors)), np.bool_)
    hits, origin, x_row, step = np.empty(len(x), np.int64), np.zeros(d), np.empty(d), np.empty(d)
    to_one, to_other, to_origin, exact, mine = np.empty((5, len(x)))
    for p in range(first, last):
        row_i, row_j = cross[i[p]], cross[j[p]]
        largest = nothing
        for k in range(len(x)):
            slack[k] = shares[p] * outlying[k]
            largest = max(largest, slack[k])
            most = norms[k] + slack[k]
            x[k], y[k], beyond[k] = most - two * row_i[k], most - two * row_j[k], far
        if arc:
            for k in range(len(x)):
                z[k] = norms[k] + slack[k] - two * common[k]
        for side in (own[i[p]], own[j[p]]):
            if 0 <= side < len(x):
                x[side] = y[side] = z[side] = far
        for a in range(u.shape[1]):
            u_, v_, w_ = np.float32(u[p, a]), np.float32(v[p, a]), np.float32(w[p, a])
            low = far
            if arc:
                for k in range(len(x)):
                    gap = u_ * x[k] + v_ * y[k] + w_ * z[k]
                    low = _lesser(gap, low)
            else:
                for k in range(len(x)):
                    gap = u_ * x[k] + v_ * y[k]
                    low = _lesser(gap, low)
            if low >= far / two:  # nothing but the parents
                continue
            least[p, a] = min(least[p, a], low)
            limit = least[p, a] + (three * off[p] + widest)  # once more than needed: it is rounded
            if low > limit + three * largest:
                continue
            for k in range(len(x)):
                gap = u_ * x[k] + v_ * y[k]
                if arc:
                    gap += w_ * z[k]
                beyond[k] = _lesser(beyond[k], gap - limit)
        count = 0
        for k in range(len(x)):
            hits[count] = k
            count += beyond[k] <= three * slack[k]
        if count == 0:
            continue
        for h in range(count):
            k = hits[h]
            hit_slack[h], beyond[h] = slack[k], far
            hit_x[h], hit_y[h] = norms[k] - two * row_i[k], norms[k] - two * row_j[k]
            if arc:
                hit_z[h] = norms[k] - two * common[k]
        for a in range(u.shape[1]):
            u_, v_, w_, gap = np.float32(u[p, a]), np.float32(v[p, a]), np.float32(w[p, a]), gaps[a]
            for h in range(count):
                gap[h] = u_ * hit_x[h] + v_ * hit_y[h]
            if arc:
                for h in range(count):
                    gap[h] += w_ * hit_z[h]
            for s in range(len(factors)):
                end = least[p, a] + (two * off[p] + np.float32(margin / factors[s]))
                limit, worst = end, nothing
                for h in range(count):
                    worst = max(worst, hit_slack[h] if gap[h] - hit_slack[h] <= end else nothing)
                reach = factors[s] * (off[p] + worst)
                rough[a, s] = reach <= ROUGH and factors[s] < FAR
                if rough[a, s]:
                    c, low = np.float32(factors[s] * LOG2_E), np.float32(min(np.float64(least[p, a]), base[p, a, s]))
                    sum_ = sum_of_squares = nothing
                    size = 0
                    for h in range(count):
                        listed[size] = gap[h]
                        size += gap[h] - hit_slack[h] <= end
                    if size == 0:  # the tile is another sigma's
                        limits[a, s] = -far
                        continue
                    for h in range(size):
                        weight = _exp2(c * (low - listed[h]))
                        weights[h] = weight
                        sum_ += weight
                        sum_of_squares += weight * weight
                    shrink = _exp2(factors[s] * LOG2_E * (low - base[p, a, s]))
                    base[p, a, s] = low
                    total[p, a, s] = total[p, a, s] * shrink + sum_
                    squares[p, a, s] = squares[p, a, s] * shrink * shrink + sum_of_squares
                    left[p, a, s] *= shrink
                    allowed = np.float32((stays * total[p, a, s] - left[p, a, s]) / reach)
                    stay = nothing
                    if sum_ <= allowed:
                        limit, stay = -far, sum_
                    else:
                        for _ in range(BISECTIONS):
                            middle = low + (limit - low) / two
                            some = nothing
                            for h in range(size):
                                weight = weights[h]
                                some += weight if listed[h] > middle else nothing
                            if some <= allowed:
                                limit, stay = middle, some
                            else:
                                low = middle
                    left[p, a, s] += reach * stay
                limits[a, s] = limit
                part = nothing if rough[a, s] else np.float32(1)
                for h in range(count):
                    beyond[h] = _lesser(beyond[h], gap[h] - part * hit_slack[h] - limit)
        again = 0
        for h in range(count):
            hits[again] = hits[h]
            hit_slack[again] = hit_slack[h]
            for a in range(u.shape[1]):
                gaps[a, again] = gaps[a, h]
            again += beyond[h] <= 0
        if again == 0:
            continue
        length = 0.0
        # from the parent nearer to the middle: what is far from it loses the digits of the other's distances
        turned = parent_norms[j[p]] < parent_norms[i[p]]
        one, other = (j[p], i[p]) if turned else (i[p], j[p])
        for t in range(d):
            x_row[t] = parents[one, t]
            step[t] = parents[other, t] - x_row[t]
            length += step[t] * step[t]
        for h in range(again):
            square, product = _products(latents[hits[h]], x_row, step)
            to_one[h] = square * per_square - parent_norms[one] - typical_norm
            # the other parent is x + step
            to_other[h] = (square - 2 * product + length) * per_square - parent_norms[other] - typical_norm
            if arc:
                square, _ = _products(latents[hits[h]], origin, origin)
                to_origin[h] = square * per_square - origin_norm - typical_norm
        for a in range(u.shape[1]):
            gap = gaps[a]
            of_one, of_other = (v[p, a], u[p, a]) if turned else (u[p, a], v[p, a])
            for h in range(again):
                exact[h] = of_one * to_one[h] + of_other * to_other[h]
            if arc:
                for h in range(again):
                    exact[h] += w[p, a] * to_origin[h]
            for s in range(len(factors)):
                c, low, sum_, sum_of_squares, size = factors[s] * LOG2_E, base[p, a, s], 0.0, 0.0, 0
                part = nothing if rough[a, s] else np.float32(1)
                for h in range(again):
                    listed[size], mine[size] = gap[h], exact[h]
                    size += gap[h] - part * hit_slack[h] <= limits[a, s]
                if rough[a, s]:  # in place of what float32 gave
                    single, origin_of_all = np.float32(c), np.float32(low)
                    for h in range(size):
                        weight = _exp2(np.float32(c * (low - mine[h])))
                        given = _exp2(single * (origin_of_all - listed[h]))
                        sum_ += weight - given
                        sum_of_squares += weight * weight - given * given
                else:
                    for h in range(size):
                        low = _lesser(mine[h], low)
                    shrink = _exp2(c * (low - base[p, a, s])) if low < base[p, a, s] else 1.0
                    base[p, a, s] = low
                    total[p, a, s] *= shrink
                    squares[p, a, s] *= shrink * shrink
                    for h in range(size):
                        weight = _exp2(c * (low - mine[h]))
                        sum_ += weight
                        sum_of_squares += weight * weight
                total[p, a, s] += sum_
                squares[p, a, s] += sum_of_squares
