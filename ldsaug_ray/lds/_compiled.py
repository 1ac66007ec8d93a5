"""The inner loops on a CPU, compiled by Numba: sums of Gaussian weights straight from a tile of inner products.

`cross[r, k]` is the inner product of row r (a parent, or any point) with latent k, `norms[k]` the latent's squared
norm, all in one frame. Then norms[k] - 2 cross[r, k] is the squared distance less the row's own squared norm, which is
the same for every k and is added by the caller. Nothing here allocates by the tile, takes the interpreter's lock, or
starts a thread: `in_threads` splits the rows or pairs, each of which one thread handles in one order, so that the
result does not depend on the number of threads.

Long, since there is a loop for each kind of sum, so that each is free of branches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

CHUNK = 1024  # latents at a time: three rows of them stay in the first-level cache
FAR = np.float32(1e30)  # a distance whose weight is nothing

_EXACT: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}
# sums may be taken in any order (a chunk is summed in lanes); NaN and infinity keep their meaning
_SUMS: dict[str, Any] = {**_EXACT, "fastmath": {"reassoc", "contract", "nsz"}}

_SOURCES = sorted(Path(__file__).parent.glob("*_compiled.py"))
_DIGEST = hashlib.sha256(b"".join(file.read_bytes() for file in _SOURCES)).digest()


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` that compiles in every process where there is no folder to keep code in: then Numba fails."""

    def of(function: Callable[..., Any]) -> Any:
        try:
            return njit(**options)(function)
        except RuntimeError as e:
            if "no locator" not in str(e):
                raise
            return njit(**{**options, "cache": False})(function)

    return of


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`kept` whose kept code is stale once any file of inner loops has changed: Numba looks at a function's own
    alone, and not at those of what it calls.

    A function that compiled code calls has to have `forceinline`. Else its code exists twice, alone and beside the
    caller's, where it may add in another order, and a process that compiled calls the one, a process that loaded the
    other.
    """

    def of(function: Callable[..., Any]) -> Any:
        dispatcher = kept(**options)(function)
        if dispatcher._cache.cache_path is not None:
            dispatcher._cache._cache_file._source_stamp = _DIGEST
        return dispatcher

    return of


LOG2_E = 1.4426950408889634
# 2**f on [-1/2, 1/2]: a minimax polynomial with 2**0 = 1 (relative error 2e-9), and Taylor's to double precision
_S1, _S2, _S3, _S4, _S5, _S6 = (
    np.float32(c) for c in (0.6931472029, 0.2402264791, 0.05550332471, 0.009618437358, 0.001339887459, 0.0001535336206)
)
_D1, _D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12 = (
    0.6931471805599453,
    0.2402265069591007,
    0.05550410866482158,
    0.009618129107628477,
    0.0013333558146428443,
    0.00015403530393381608,
    1.5252733804059841e-05,
    1.3215486790144307e-06,
    1.0178086009239699e-07,
    7.054911620801121e-09,
    4.445538271870811e-10,
    2.5678435993488202e-11,
)


def _bitcast(signature: Any, llvm: ir.Type) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], llvm)

    return intrinsic(lambda typing_context, x: (signature, code))


_float32_as_bits = _bitcast(types.int32(types.float32), ir.IntType(32))
_bits_as_float32 = _bitcast(types.float32(types.int32), ir.FloatType())
_float64_as_bits = _bitcast(types.int64(types.float64), ir.IntType(64))
_bits_as_float64 = _bitcast(types.float64(types.int64), ir.DoubleType())


@intrinsic
def _wide_vectors(typing_context: Any) -> Any:
    """Use 512-bit registers where there are any; the compiler's own choice is 256, a third slower here."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # llvmlite's own `add` knows only attributes without a value
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), code


@intrinsic
def _lesser(typing_context: Any, x: Any, y: Any) -> Any:
    """The lesser of two numbers of one type that are not NaN. The least of many is then sought by vectors, 24 times
    faster: Numba's flags reach the comparison, not the choice."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flags = ("nnan", "nsz")
        return builder.select(builder.fcmp_ordered("<", *arguments, flags=flags), *arguments, flags=flags)

    return x(x, y), code


@compiled(**_EXACT, forceinline=True)
def _exp2_within(t):  # type: ignore[no-untyped-def]
    """2**t, float32, for |t| up to 126 and no other."""
    n = np.rint(t)
    f = t - n
    y = _S6
    y = y * f + _S5
    y = y * f + _S4
    y = y * f + _S3
    y = y * f + _S2
    y = y * f + _S1
    y = y * f + np.float32(1)
    return _bits_as_float32(_float32_as_bits(y) + (np.int32(n) << np.int32(23)))


def _exp2(t: Any) -> Any:
    """2**t for |t| up to 126 (float32) or 1,022 (float64); beyond, the value at that end."""
    raise NotImplementedError  # only compiled code calls it


@overload(_exp2, jit_options={"fastmath": {"contract"}, "forceinline": True})
def _exp2_of_a_type(t: Any) -> Callable[[Any], Any]:
    if t == types.float32:

        def single(t: Any) -> Any:
            t = t if t > np.float32(-126) else np.float32(-126)
            return _exp2_within(t if t < np.float32(126) else np.float32(126))

        return single

    def double(t: Any) -> Any:
        t = t if t > -1022.0 else -1022.0
        t = t if t < 1022.0 else 1022.0
        n = np.rint(t)
        f = t - n
        y = _D12
        y = y * f + _D11
        y = y * f + _D10
        y = y * f + _D9
        y = y * f + _D8
        y = y * f + _D7
        y = y * f + _D6
        y = y * f + _D5
        y = y * f + _D4
        y = y * f + _D3
        y = y * f + _D2
        y = y * f + _D1
        y = y * f + 1.0
        return _bits_as_float64(_float64_as_bits(y) + (np.int64(n) << 52))

    return double


@compiled(**_SUMS)
def centre_rows(points, mean, scale, origin, out, norms, along, first, last):  # type: ignore[no-untyped-def]
    """out = (points - mean) * scale, rounded once; its squared norms and inner products with `origin` in float64."""
    for r in range(first, last):
        norm = product = 0.0
        for k in range(points.shape[1]):
            x = (points[r, k] - mean[k]) * scale
            norm += x * x
            product += x * origin[k]
            out[r, k] = x
        norms[r] = norm
        along[r] = product


@compiled(**_SUMS)
def add_combinations(  # type: ignore[no-untyped-def]
    cross, norms, common, own, far, i, j, u, v, w, factors, low, total, squares, first, last
):
    """Weights of any points z = u z_i + v z_j + w c of pairs `first` to `last`, one exponential each.

    cross: float[R, K]; norms, common: float[K], the latter the inner products with c; own: int64[R], the column that
    is the row itself, which has no weight, or a number outside; far: of cross's type, beyond any distance; i, j:
    int64[P] rows; u, v, w: float64[P, A]; factors: float64[S], log2(e) / 2 sigma**2. Updates low, float64[P, A], the
    least of norms - 2 <z, latent> so far, and total and squares, float64[P, A, S], the sums of the weights, and of
    their squares, relative to the weight at `low`.
    """
    _wide_vectors()
    kind = cross.dtype.type
    two = kind(2)
    gaps = np.empty(CHUNK, cross.dtype)
    for start in range(0, cross.shape[1], CHUNK):
        size = min(CHUNK, cross.shape[1] - start)
        n, m = norms[start : start + size], common[start : start + size]
        for p in range(first, last):
            x, y = cross[i[p], start : start + size], cross[j[p], start : start + size]
            own_i, own_j = own[i[p]] - start, own[j[p]] - start
            for a in range(u.shape[1]):
                x_share, y_share, m_share = two * kind(u[p, a]), two * kind(v[p, a]), two * kind(w[p, a])
                for k in range(size):
                    gaps[k] = n[k] - (x_share * x[k] + y_share * y[k] + m_share * m[k])
                if 0 <= own_i < size:
                    gaps[own_i] = far
                if 0 <= own_j < size:
                    gaps[own_j] = far
                least = far
                for k in range(size):
                    least = _lesser(gaps[k], least)
                if least == far:  # nothing but the parents
                    continue
                if least < low[p, a]:
                    for s in range(len(factors)):
                        shrink = 2.0 ** (factors[s] * (least - low[p, a]))
                        total[p, a, s] *= shrink
                        squares[p, a, s] *= shrink * shrink
                    low[p, a] = least
                base = kind(low[p, a])
                for s in range(len(factors)):
                    c = kind(factors[s])
                    s1 = s2 = kind(0)
                    for k in range(size):
                        weight = _exp2(c * (base - gaps[k]))
                        s1 += weight
                        s2 += weight * weight
                    total[p, a, s] += s1
                    squares[p, a, s] += s2


@compiled(**_EXACT)
def kernel_rows(cross, norms, reference, factor, out, first, last):  # type: ignore[no-untyped-def]
    """out[r, k] = 2**(factor (reference[r] + 2 cross[r, k] - norms[k])), float32, for rows `first` to `last`."""
    _wide_vectors()
    two = np.float32(2)
    for r in range(first, last):
        for k in range(cross.shape[1]):
            out[r, k] = _exp2(factor * (reference[r] + two * cross[r, k] - norms[k]))


@compiled(**_SUMS)
def least_gap(cross, norms, out, first, last):  # type: ignore[no-untyped-def]
    """out[r] = min over k of norms[k] - 2 cross[r, k], leaving out what is hidden by -FAR; 0 where nothing is left."""
    two, far = np.float32(2), np.float32(FAR)
    for r in range(first, last):
        least = far
        for k in range(cross.shape[1]):
            gap = norms[k] - two * cross[r, k]
            least = _lesser(gap, least)
        out[r] = least if least < far else np.float32(0)


@compiled(**_SUMS)
def squared_gaps(train, i, j, out, first, last):  # type: ignore[no-untyped-def]
    """out[p] = ||z_i - z_j||^2 of pairs `first` to `last`, by direct differences in float64."""
    for p in range(first, last):
        x, y = train[i[p]], train[j[p]]
        square = 0.0
        for k in range(len(x)):
            gap = np.float64(x[k]) - np.float64(y[k])
            square += gap * gap
        out[p] = square


@compiled(**_SUMS)
def angles(train, i, j, out, first, last):  # type: ignore[no-untyped-def]
    """out[p] = angle between z_i and z_j at the origin, radians (Kahan: exact for small and for flat ones); 0 at 0."""
    for p in range(first, last):
        x, y = train[i[p]], train[j[p]]
        n_x = n_y = minus = plus = 0.0
        for k in range(len(x)):
            n_x += np.float64(x[k]) * np.float64(x[k])
            n_y += np.float64(y[k]) * np.float64(y[k])
        if n_x == 0 or n_y == 0:
            out[p] = 0.0
            continue
        a, b = 1 / np.sqrt(n_x), 1 / np.sqrt(n_y)
        for k in range(len(x)):
            unit_x, unit_y = a * x[k], b * y[k]
            minus += (unit_x - unit_y) ** 2
            plus += (unit_x + unit_y) ** 2
        out[p] = 2 * np.arctan2(np.sqrt(minus), np.sqrt(plus))


@compiled(**_SUMS)
def add_rows(points, size, out, first, last):  # type: ignore[no-untyped-def]
    """out[b] = sum of the rows of block b, float64[d], for blocks `first` to `last` of `size` rows."""
    for b in range(first, last):
        total = out[b]
        total[:] = 0
        for r in range(b * size, min((b + 1) * size, len(points))):
            row = points[r]
            for k in range(len(row)):
                total[k] += row[k]


@compiled(**_SUMS)
def add_squares(points, mean, size, out, first, last):  # type: ignore[no-untyped-def]
    """out[b] = sum over the rows of block b of ||row - mean||^2, for blocks `first` to `last` of `size` rows."""
    for b in range(first, last):
        total = 0.0
        for r in range(b * size, min((b + 1) * size, len(points))):
            row = points[r]
            for k in range(len(row)):
                gap = row[k] - mean[k]
                total += gap * gap
        out[b] = total


@compiled(**_EXACT)
def rows_within(points, limit, out, first, last):  # type: ignore[no-untyped-def]
    """out[r]: whether all of row r lies within -limit..limit; false where there is a NaN."""
    for r in range(first, last):
        row = points[r]
        outside = 0
        for k in range(len(row)):
            outside += not (abs(row[k]) <= limit)
        out[r] = outside == 0


@compiled(**_EXACT)
def settle(  # type: ignore[no-untyped-def]
    order, i, j, gaps, u, v, w, norms, along, origin_norm, shift, low, typical_norm, farthest, common, outlying,
    factors, total, squares, column, usual_rounding, most_rounding, weight_rounding, negligible, least, largest,
    base, all_total, all_squares, usual, most, first, last
):  # fmt: skip
    """Sums of pairs `first` to `last` relative to an exponent, in the order in which the pairs were given.

    What was added up is relative to a squared distance less the candidate's and the typical squared norm: shift[p, a] +
    u low[i] + v low[j]. Pair p is pair order[p] of the results; column[a] is alpha a's place in total and squares,
    float[P, ., S]. i, j: int64[P]; gaps: float64[P]; u, v, w, shift: float64[P, A]; norms, along, low: float[R].
    Fills base, all_total, all_squares, float64[P, A, S], and usual, most, float64[P, S]: by how much log LDS is off at
    the worst alpha, as a rule and at the very most; infinite where a total is not within least..largest. Only latents
    within reach of the candidate matter there: those whose weight is not `negligible` (nats) beside the largest. No
    latent's norm lies between `common` and `outlying`, none beyond `farthest`.
    """
    for p in range(first, last):
        n_i, n_j = norms[i[p]], norms[j[p]]
        product = (n_i + n_j - gaps[p]) / 2
        q = order[p]
        usual[q], most[q] = 0.0, 0.0
        for a in range(u.shape[1]):
            x, y, z = u[p, a], v[p, a], w[p, a]
            norm = x * x * n_i + y * y * n_j + z * z * origin_norm
            norm += 2 * (x * y * product + z * (x * along[i[p]] + y * along[j[p]]))
            nearest = norm + typical_norm + shift[p, a] + x * low[i[p]] + y * low[j[p]]
            for s in range(len(factors)):
                f = factors[s]
                amount = np.float64(total[p, column[a], s])
                base[q, a, s] = nearest * f
                all_total[q, a, s] = amount
                all_squares[q, a, s] = squares[p, column[a], s]
                if not (least < amount < largest):  # also where it is NaN
                    usual[q, s] = most[q, s] = np.inf
                    continue
                depth = -np.log(amount)
                exponent = max(nearest * f + depth, 0.0)
                reach = min(np.sqrt(max(norm, 0.0)) + np.sqrt((exponent + negligible) / f), farthest)
                if reach < outlying:
                    reach = min(reach, common)
                size = abs(x) * (np.sqrt(n_i) + reach) ** 2 + abs(y) * (np.sqrt(n_j) + reach) ** 2
                size = f * (size + abs(z) * (np.sqrt(origin_norm) + reach) ** 2)
                weights = weight_rounding * (negligible + max(depth, 0.0))  # of exponents, relative to the base
                usual[q, s] = max(usual[q, s], size * usual_rounding + weights)
                most[q, s] = max(most[q, s], size * most_rounding + weights)


@compiled(**_EXACT)
def add_parents(  # type: ignore[no-untyped-def]
    gaps, norms, u, v, w, precisions, base, total, squares, n, log_lds, without, share, neighbours, first, last
):
    """What is known of each candidate of pairs `first` to `last`, from the sums over all latents but the parents.

    gaps: float64[P], squared distance of the parents; norms: float64[P, 2], theirs, used where w is not 0; u, v, w:
    float64[P, A], z = u z_i + v z_j; precisions: float64[S], 1 / 2 sigma**2; base, total, squares: float64[P, A, S];
    n: how many latents there are. Fills the last four, float64[P, A, S]: the fields of `PairScores`.
    """
    log_n = np.log(n)
    for p in range(first, last):
        gap, n_i, n_j = gaps[p], norms[p, 0], norms[p, 1]
        for a in range(u.shape[1]):
            # z - z_i = y (z_j - z_i) - o z_i, where o is what the arc leaves of the origin; 0 on the line
            x, y, o = u[p, a], v[p, a], w[p, a]
            near_i = max(y * y * gap + o * o * n_i - y * o * (n_j - n_i - gap), 0.0)
            near_j = max(x * x * gap + o * o * n_j - x * o * (n_i - n_j - gap), 0.0)
            near, far = min(near_i, near_j), max(near_i, near_j)
            for s in range(len(precisions)):
                own = near * precisions[s]
                second = np.exp((near - far) * precisions[s])
                b, t, q = base[p, a, s], total[p, a, s], squares[p, a, s]
                low = min(own, b)
                mine, theirs = np.exp(low - own), np.exp(low - b)
                parents = (1 + second) * mine
                everyone = parents + t * theirs
                every_square = (1 + second * second) * mine * mine + q * theirs * theirs
                # rounding must not push a mean of values <= 1 above 1
                log_lds[p, a, s] = min(np.log(everyone) - log_n - low, 0.0)
                without[p, a, s] = min(np.log(t) - log_n - b, 0.0) if t > 0 else -np.inf
                share[p, a, s] = min(parents / everyone, 1.0)
                neighbours[p, a, s] = min(max(everyone * everyone / every_square, 1.0), n)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # results below the normal range become 0 in its threads: x86 takes a hundred times longer for them, and far latents
    # have such weights
    import torch  # here: settings are read without it

    flush: Callable[[bool], object] = torch.set_flush_denormal
    return ThreadPoolExecutor(threads, thread_name_prefix="lds", initializer=flush, initargs=(True,))


class _Writable:
    """The memory of a read-only array as if it could be written."""

    def __init__(self, array: NDArray[Any]) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self.array = array


def _plain(x: Any) -> Any:
    """An array as Numba's loops take it: writable rows that follow each other, copied where they do not.

    A loop is compiled for each kind of array that it meets, and kinds that matter to no loop were half of them.
    """
    if not isinstance(x, np.ndarray) or x.flags.carray:
        return x
    x = np.require(x, requirements=["C", "A"])
    return x if x.flags.writeable else np.asarray(_Writable(x))


def in_threads(work: Callable[..., None], n: int, *arguments: Any) -> None:
    """work(*arguments, first, last) over 0..n, one run of rows for each of torch's threads. Arrays that it fills must
    be contiguous."""
    import torch

    threads = min(torch.get_num_threads(), n)
    cuts = [n * t // threads for t in range(threads + 1)] if threads else []
    plain = [_plain(x) for x in arguments]
    for one in [_pool(threads).submit(work, *plain, a, b) for a, b in pairwise(cuts)]:
        one.result()
