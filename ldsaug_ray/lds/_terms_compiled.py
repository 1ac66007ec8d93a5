"""The inner loop at small sigma: of each candidate the latents that matter, the heaviest at exact distances. Private.

Let g_k be the squared distance of candidate z and latent k as float32 products give it, less what is the same for all
k, and e a bound on how far any is off: r sum_i |s_i| (||a_i|| + max_k ||z_k||)^2 for z = sum_i s_i a_i, with r twice
the largest rounding of a squared distance that was found (`_frame.Rounding`; the proof takes r as given). With
f = 1 / 2 sigma^2 the largest weight W is at least exp(-f (G + e)), G = min_k g_k, and

    latent k is listed where  g_k - e <= G + e + m / f,     m = log(K / TOLERANCE).

A weight that is not listed is below exp(-m) W, and there are at most K: together they are below TOLERANCE of the sum,
and so is log LDS; of the sum of squares even less is missing. G only falls from tile to tile, so that early tiles list
more, never less.

Were every weight off by a share h, as f times the rounding of its distance, the sum would be off by h: so weights that
make up a share t of it may stay as float32 gives them where t h is within what float32 sums may be off. A limit between
G and the list's end, found by bisection, parts them from the heavier ones, whose distances are taken again by
differences in float64: few where sigma is small, since then a few weights are nearly the whole sum. Where e is beyond
ROUGH, float32 does not tell which are heavy, and all that are listed are taken again.

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
    cross, norms, common, own, i, j, u, v, w, arc, off, share, factors, margin, parents, parent_norms, latents,
    origin_norm, mean_norm, scale, least, base, total, squares, left, first, last
):  # fmt: skip
    """Add one tile's weights of pairs `first` to `last` to total and squares, float64[P, A, S], relative to `base`.

    cross, norms, common, own, i, j, u, v, w as in `_compiled.add_combinations`, float32, norms less mean_norm; arc:
    whether any of w is not 0; off: float32[P], e; share: float64[P], f times the share of a sum that may stay in
    float32; margin: m; parents: float[R, d] and latents: float[K, d] in their own coordinates; parent_norms:
    float64[R]; origin_norm, scale: the frame's.
    Go on from tile to tile: least, float32[P, A], G; base, float64[P, A, S], a squared distance near the least, less
    the candidate's and the mean squared norm; left, float64[P, A, S], the part of total that stays in float32.
    """
    _wide_vectors()
    nothing, two, far = np.float32(0), np.float32(2), np.float32(FAR)
    d, per_square = latents.shape[1], 1 / (scale * scale)
    smallest = factors[0]
    for factor in factors:
        smallest = min(smallest, factor)
    widest = np.float32(margin / smallest)
    x, y, z, beyond, hit_x, hit_y, hit_z, listed, weights = np.empty((9, cross.shape[1]), np.float32)
    gaps, limits = np.empty((u.shape[1], len(x)), np.float32), np.empty((u.shape[1], len(factors)), np.float32)
    hits, origin, x_row, step = np.empty(len(x), np.int64), np.zeros(d), np.empty(d), np.empty(d)
    to_i, to_j, to_origin, exact, mine = np.empty((5, len(x)))
    for p in range(first, last):
        row_i, row_j = cross[i[p]], cross[j[p]]
        for k in range(len(x)):
            x[k], y[k], beyond[k] = norms[k] - two * row_i[k], norms[k] - two * row_j[k], far
        if arc:
            for k in range(len(x)):
                z[k] = norms[k] - two * common[k]
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
            limit = least[p, a] + (np.float32(3) * off[p] + widest)  # once more than needed: it is rounded
            if low > limit:
                continue
            for k in range(len(x)):
                gap = u_ * x[k] + v_ * y[k]
                if arc:
                    gap += w_ * z[k]
                beyond[k] = _lesser(beyond[k], gap - limit)
        count = 0
        for k in range(len(x)):
            hits[count] = k
            count += beyond[k] <= 0
        if count == 0:
            continue
        for h in range(count):
            hit_x[h], hit_y[h], hit_z[h] = x[hits[h]], y[hits[h]], z[hits[h]]
            beyond[h] = far
        for a in range(u.shape[1]):
            u_, v_, w_, gap = np.float32(u[p, a]), np.float32(v[p, a]), np.float32(w[p, a]), gaps[a]
            for h in range(count):
                gap[h] = u_ * hit_x[h] + v_ * hit_y[h]
            if arc:
                for h in range(count):
                    gap[h] += w_ * hit_z[h]
            for s in range(len(factors)):
                end = least[p, a] + (two * off[p] + np.float32(margin / factors[s]))
                limit = end
                if factors[s] * off[p] <= ROUGH and factors[s] < FAR:
                    c, low = np.float32(factors[s] * LOG2_E), least[p, a]
                    sum_ = sum_of_squares = nothing
                    size = 0
                    for h in range(count):
                        listed[size] = gap[h]
                        size += gap[h] <= end
                    for h in range(size):
                        weight = _exp2(c * (low - listed[h]))
                        weights[h] = weight
                        sum_ += weight
                        sum_of_squares += weight * weight
                    shrink = _exp2(factors[s] * LOG2_E * (low - base[p, a, s])) if low < base[p, a, s] else 1.0
                    base[p, a, s] = low
                    total[p, a, s] = total[p, a, s] * shrink + sum_
                    squares[p, a, s] = squares[p, a, s] * shrink * shrink + sum_of_squares
                    left[p, a, s] *= shrink
                    allowed = np.float32(share[p] / factors[s] * total[p, a, s] - left[p, a, s])
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
                    left[p, a, s] += stay
                limits[a, s] = limit
                for h in range(count):
                    beyond[h] = _lesser(beyond[h], gap[h] - limit)
        again = 0
        for h in range(count):
            hits[again] = hits[h]
            for a in range(u.shape[1]):
                gaps[a, again] = gaps[a, h]
            again += beyond[h] <= 0
        if again == 0:
            continue
        length = 0.0
        for t in range(d):
            x_row[t] = parents[i[p], t]
            step[t] = parents[j[p], t] - x_row[t]
            length += step[t] * step[t]
        for h in range(again):
            square, product = _products(latents[hits[h]], x_row, step)
            to_i[h] = square * per_square - parent_norms[i[p]] - mean_norm
            # the other parent is x + step
            to_j[h] = (square - 2 * product + length) * per_square - parent_norms[j[p]] - mean_norm
            if arc:
                square, _ = _products(latents[hits[h]], origin, origin)
                to_origin[h] = square * per_square - origin_norm - mean_norm
        for a in range(u.shape[1]):
            gap = gaps[a]
            for h in range(again):
                exact[h] = u[p, a] * to_i[h] + v[p, a] * to_j[h]
            if arc:
                for h in range(again):
                    exact[h] += w[p, a] * to_origin[h]
            for s in range(len(factors)):
                c, low, sum_, sum_of_squares, size = factors[s] * LOG2_E, base[p, a, s], 0.0, 0.0, 0
                for h in range(again):
                    listed[size], mine[size] = gap[h], exact[h]
                    size += gap[h] <= limits[a, s]
                if factors[s] * off[p] <= ROUGH and factors[s] < FAR:  # in place of what float32 gave
                    single, origin_of_all = np.float32(c), least[p, a]
                    for h in range(size):
                        weight = _exp2(np.float32(c * (low - mine[h])))
                        rough = _exp2(single * (origin_of_all - listed[h]))
                        sum_ += weight - rough
                        sum_of_squares += weight * weight - rough * rough
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
