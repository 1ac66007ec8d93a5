"""The inner loop for the candidates alpha = 0.1 ... 0.9 of a pair, compiled by Numba. Private.

With x and y a latent's squared distances from the two parents, less those of any near latent, f = 1 / 2 sigma**2, a =
exp(-f x / 10) and b = exp(-f y / 10), its weight at alpha = m/10 is a**(10 - m) * b**m: two exponentials serve nine
candidates.

Where sigma is so large that f x and f y each stay within 2 RADIUS over a chunk of latents, one pass serves every such
sigma: exp(u), |u| <= RADIUS, is a polynomial in u, and so its sum over the latents follows from the sums of powers of
(1 - alpha) x + alpha y. Interpolated at Chebyshev's points, degree 8 is off by at most 3e-8 of a weight, and by 4e-5 of
its square. What is used depends on the pair, the chunk and the sigma, and on no other sigma.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from ldsaug_ray.lds._compiled import _SUMS, CHUNK, FAR, LOG2_E, _exp2, _exp2_within, _lesser, _wide_vectors, compiled

DEGREE, RADIUS = 8, 1.0
_INTERPOLANTS = (Chebyshev.interpolate(np.exp, DEGREE, [-r * RADIUS, r * RADIUS]) for r in (1, 2))
# of exp(u) and exp(2 u), |u| <= RADIUS, float64[2, DEGREE + 1]
_OF_EXP = np.array([p.convert(kind=Polynomial).coef for p in _INTERPOLANTS]) * [[1.0], [2.0]] ** np.arange(DEGREE + 1)


@compiled(**_SUMS)
def add_tenths(  # type: ignore[no-untyped-def]
    cross, norms, reference, own, i, j, factors, total, squares, first, last
):
    """Add a tile's weights of the nine candidates of pairs `first` to `last`.

    cross: float32[R, K]; norms: float32[K]; reference: float32[R], the near latent's; own: int64[R], the column that is
    the row itself, which has no weight, or a number outside; i, j: int64[P] rows; factors: float32[S], log2(e) / 20
    sigma**2. Adds to total and squares, float64[P, 9, S]: the sums of weights and of their squares.
    """
    _wide_vectors()
    two, far, most = np.float32(2), np.float32(FAR), np.float32(126)
    x, y, x_, y_ = np.empty((4, CHUNK), np.float32)
    powers = np.empty((DEGREE + 1, 9))
    for start in range(0, cross.shape[1], CHUNK):
        stop = min(start + CHUNK, cross.shape[1])
        n = norms[start:stop]
        for p in range(first, last):
            row_i, row_j = cross[i[p], start:stop], cross[j[p], start:stop]
            ref_i, ref_j, size = reference[i[p]], reference[j[p]], len(n)
            for k in range(size):
                x[k], y[k] = two * row_i[k] + (ref_i - n[k]), two * row_j[k] + (ref_j - n[k])
            for parent in (max(own[i[p]], own[j[p]]) - start, min(own[i[p]], own[j[p]]) - start):
                if 0 <= parent < size:  # has no weight
                    size -= 1
                    x[parent], y[parent] = x[size], y[size]
            x_low = y_low = x_least = y_least = far  # the latter of -x, -y
            for k in range(size):
                x_low, x_least = _lesser(x[k], x_low), _lesser(-x[k], x_least)
                y_low, y_least = _lesser(y[k], y_low), _lesser(-y[k], y_least)
            x_mid, y_mid = (x_low - x_least) / two, (y_low - y_least) / two
            half = max(-min(x_low + x_least, y_low + y_least) / two, np.float32(1) / far)
            largest, summed = -min(x_low, y_low, x_least, y_least), False
            for s in range(len(factors)):
                c = factors[s]
                if c * half <= RADIUS * LOG2_E / 10:
                    if not summed:
                        summed, inverse = True, np.float32(1) / half
                        for k in range(size):
                            x_[k] = (x[k] - x_mid) * inverse
                            y_[k] = (y[k] - y_mid) * inverse - x_[k]
                        powers[0] = size
                        for m in range(powers.shape[1]):
                            alpha = np.float32(0.1) * np.float32(m + 1)
                            s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = np.float32(0)
                            for k in range(size):
                                g = x_[k] + alpha * y_[k]
                                g2 = g * g
                                g3, g4 = g2 * g, g2 * g2
                                s1 += g
                                s2 += g2
                                s3 += g3
                                s4 += g4
                                s5 += g4 * g
                                s6 += g4 * g2
                                s7 += g4 * g3
                                s8 += g4 * g4
                            of_m = (s1, s2, s3, s4, s5, s6, s7, s8)
                            for power in range(DEGREE):
                                powers[power + 1, m] = of_m[power]
                    u = np.float64(c * half) * (10 / LOG2_E)
                    for m in range(9):
                        weight = _exp2(np.float64(c) * ((9 - m) * np.float64(x_mid) + (m + 1) * np.float64(y_mid)))
                        sum_ = sum_of_squares = 0.0
                        for power in range(DEGREE, -1, -1):
                            sum_ = sum_ * u + _OF_EXP[0, power] * powers[power, m]
                            sum_of_squares = sum_of_squares * u + _OF_EXP[1, power] * powers[power, m]
                        total[p, m, s] += weight * sum_
                        squares[p, m, s] += weight * weight * sum_of_squares
                    continue
                cut = c * largest > most
                if cut:
                    end = most / c
                    for k in range(size):
                        x_[k], y_[k] = x[k], y[k]
                        x[k], y[k] = min(max(x[k], -end), end), min(max(y[k], -end), end)
                s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = np.float32(0)
                q1 = q2 = q3 = q4 = q5 = q6 = q7 = q8 = q9 = np.float32(0)
                for k in range(size):
                    a, b = _exp2_within(c * x[k]), _exp2_within(c * y[k])
                    ab, a2, b2 = a * b, a * a, b * b
                    a4, b4, ab2 = a2 * a2, b2 * b2, ab * ab
                    ab3, ab4 = ab2 * ab, ab2 * ab2
                    w = a4 * a4 * ab
                    s1 += w
                    q1 += w * w
                    w = a4 * a2 * ab2
                    s2 += w
                    q2 += w * w
                    w = a4 * ab3
                    s3 += w
                    q3 += w * w
                    w = a2 * ab4
                    s4 += w
                    q4 += w * w
                    w = ab4 * ab
                    s5 += w
                    q5 += w * w
                    w = b2 * ab4
                    s6 += w
                    q6 += w * w
                    w = b4 * ab3
                    s7 += w
                    q7 += w * w
                    w = b4 * b2 * ab2
                    s8 += w
                    q8 += w * w
                    w = b4 * b4 * ab
                    s9 += w
                    q9 += w * w
                sums = (s1, s2, s3, s4, s5, s6, s7, s8, s9)
                for m in range(9):
                    total[p, m, s] += sums[m]
                sums = (q1, q2, q3, q4, q5, q6, q7, q8, q9)
                for m in range(9):
                    squares[p, m, s] += sums[m]
                if cut:
                    for k in range(size):
                        x[k], y[k] = x_[k], y_[k]
