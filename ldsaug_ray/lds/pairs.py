"""Which candidates exist: a counter-based plan, so that any worker can name any part of it without the rest.

Candidate c belongs to pair c // A and has the alpha number c % A, where A is the number of alphas. Pair p is the same
for every run, platform, and way of cutting the work:

    w = words 2p and 2p + 1 of Philox-4x64-10 with key (seed, TAG), counter from 0     (Salmon et al. 2011)
    u = (w >> 11) * 2**-53
    i = floor(u[0] * n);  j = floor(u[1] * (n - 1));  j = j + 1 if j >= i

so i and j differ and every ordered pair is equally likely (to within n * 2**-53). Pairs are drawn independently: one
may come twice.

That is the plan `random`, the paper's. In the plan `blocks` pairs come in blocks of U x V: every latent of one random
set with every latent of another, the sets disjoint. A block's candidates cost matrix products, but share U + V
parents. Block b takes the first U + V different values of floor(u * n), u from the words of Philox with key
(seed, BLOCKS) and counter (0, b, 0, 0), as above; the first U are its rows, the others its columns. Pair p is row
p // V % U and column p % V of block p // (U * V).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError

# second key words: keep these streams apart from each other and from other uses of the same seed
TAG, BLOCKS = (int.from_bytes(name, "big") for name in (b"pairs", b"blocks"))


@dataclass(frozen=True)
class Candidates:
    """M interpolants z = (1 - alpha) z_i + alpha z_j, by the numbers of their parents' rows."""

    id: NDArray[np.int64]  # [M] candidate number, ascending
    i: NDArray[np.int64]  # [M]
    j: NDArray[np.int64]  # [M]
    alpha: NDArray[np.float64]  # [M]

    def __len__(self) -> int:
        return len(self.id)


def plan_pairs(n: int, n_pairs: int, seed: int) -> NDArray[np.int64]:
    """Random pairs of different rows, int64[n_pairs, 2]; the same for every run.

    Raises InputError for n < 2, ConfigError for a negative count or a seed outside 0..2**64-1.
    """
    return plan_pairs_range(n, 0, n_pairs, seed)


def plan_pairs_range(n: int, start: int, stop: int, seed: int) -> NDArray[np.int64]:
    """`plan_pairs(n, N, seed)[start:stop]` for any N >= stop, int64[stop - start, 2], in O(stop - start).

    Raises InputError for n < 2, ConfigError for an impossible range or a seed outside 0..2**64-1.
    """
    if n < 2:
        raise InputError(f"interpolation needs at least 2 training latents; found {n}")
    if n > 2**53:
        raise InputError(f"at most 2**53 training latents can be paired; found {n}")
    if not 0 <= start <= stop:
        raise ConfigError(f"a range needs 0 <= start <= stop; found {start}..{stop}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be within 0..2**64-1; found {seed}")
    # One step of Philox's counter gives four words, that is two pairs; `advance` counts those steps.
    first = start // 2
    steps = (stop + 1) // 2 - first
    words = np.random.Philox(key=np.array([seed, TAG], np.uint64)).advance(first).random_raw(4 * steps)
    words = words.reshape(-1, 2)[start - 2 * first : stop - 2 * first]
    u = _uniform(words)
    i = (u[:, 0] * n).astype(np.int64)  # u <= 1 - 2**-53, so the rounded product stays below n
    j = (u[:, 1] * (n - 1)).astype(np.int64)
    j += j >= i
    return np.stack([i, j], axis=1)


def plan_block(n: int, shape: tuple[int, int], number: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows int64[U] and columns int64[V] of one block of `shape` (U, V): different latents, in random order.

    Raises ImpossibleError for n < U + V, ConfigError for an empty shape or a seed outside 0..2**64-1.
    """
    if min(shape) < 1 or number < 0:
        raise ConfigError(f"a block needs at least one row and one column; found {shape}, number {number}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be within 0..2**64-1; found {seed}")
    size = sum(shape)
    if n < size:
        raise ImpossibleError(
            f"blocks of {shape[0]} x {shape[1]} need {size} training latents; found {n}; lower score.block"
        )
    source = np.random.Philox(key=np.array([seed, BLOCKS], np.uint64), counter=[0, number, 0, 0])
    drawn = np.empty(0, np.int64)
    while len(drawn) < size:
        more = (_uniform(source.random_raw(2 * size)) * n).astype(np.int64)
        drawn = np.concatenate([drawn, more])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return drawn[: shape[0]], drawn[shape[0] : size]


def _plan(n: int, start: int, stop: int, seed: int, block: tuple[int, int] | None) -> NDArray[np.int64]:
    """Pairs start..stop-1 of the plan: `random`, or blocks of a shape."""
    if block is None or stop <= start:
        return plan_pairs_range(n, start, stop, seed)
    size, out = block[0] * block[1], []
    for number in range(start // size, (stop - 1) // size + 1):
        rows, columns = plan_block(n, block, number, seed)
        p = np.arange(max(start - number * size, 0), min(stop - number * size, size))
        out.append(np.stack([rows[p // block[1]], columns[p % block[1]]], axis=1))
    return np.concatenate(out)


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # exact: 53 bits


def n_pairs_for(n_candidates: int, n_alphas: int) -> int:
    """Pairs needed for `n_candidates`, the last of them perhaps used in part. Raises ConfigError for wrong counts."""
    if n_candidates < 0 or n_alphas < 1:
        raise ConfigError(f"needs candidates >= 0 and alphas >= 1; found {n_candidates} and {n_alphas}")
    return -(-n_candidates // n_alphas)


def candidates(
    n: int, alphas: Sequence[float], start: int, stop: int, seed: int, block: tuple[int, int] | None = None
) -> Candidates:
    """Candidates start..stop-1 over n latents, in O(stop - start); the same however the ids are cut into ranges.

    block: shape of the blocks in which the pairs come; none for independent pairs. Raises InputError for too few
    latents, ConfigError for no alphas, an impossible range, shape or seed.
    """
    a = np.asarray(alphas, np.float64)
    if a.ndim != 1 or not len(a):
        raise ConfigError(f"alphas must be a list of at least one number; found {alphas!r}")
    if not 0 <= start <= stop:
        raise ConfigError(f"a range needs 0 <= start <= stop; found {start}..{stop}")
    ids = np.arange(start, stop, dtype=np.int64)
    first = start // len(a)
    pairs = _plan(n, first, max(first, n_pairs_for(stop, len(a))), seed, block)[ids // len(a) - first]
    return Candidates(id=ids, i=pairs[:, 0].copy(), j=pairs[:, 1].copy(), alpha=a[ids % len(a)])
