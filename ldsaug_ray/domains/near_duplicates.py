"""Items that are nearly the same: the pairs among millions of hashes that are near.

A copy in train of an item in test spoils every measure of copying, and nobody sees it among so many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

FARTHEST = 6  # bits; `_pairs` finds every pair up to there

_BANDS = 8  # of 16 bits: pairs that differ in 6 bits have two bands in common
_COMPARED = 64  # hashes of one bucket that each is compared with


@dataclass(frozen=True)
class NearDuplicates:
    """How many images have one that is nearly the same."""

    test_in_train: int  # test images with one in train
    in_train: int  # training images with another in train
    in_test: int
    examples: tuple[tuple[int, int], ...]  # (row of a test image, row of a training image), at most five


def find_near_duplicates(hashes: np.ndarray, test: np.ndarray, radius: int) -> NearDuplicates:
    """Count images whose hash another has but for `radius` bits (at most `FARTHEST`).

    Exact but for buckets of dozens of hashes that are alike: there an image may be missed. Memory: about 200 bytes
    an image.

    Args:
        hashes: uint64[N, 2], of `Domain.hashes`.
        test: bool[N], which are test images; the others are training images.
    """
    distinct, inverse = np.unique(hashes, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    n, rows = len(distinct), np.arange(len(hashes))
    count, first = [], []
    for split in (~test, test):
        count.append(np.bincount(inverse[split], minlength=n))
        first.append(np.full(n, len(hashes)))
        np.minimum.at(first[-1], inverse[split], rows[split])
    train, held_out = count
    near = [train > 1, held_out > 1]  # of each distinct hash: another such image in this split
    leak = train > 0
    examples = [(u, u) for u in np.flatnonzero(leak & (held_out > 0))[:5].tolist()]
    for a, b in _pairs(distinct, radius):
        for here, there in ((a, b), (b, a)):
            for alike, counted in zip(near, count, strict=True):
                alike[here[counted[there] > 0]] = True
            leaking = (train[there] > 0) & (held_out[here] > 0)
            leak[here[leaking]] = True
            examples += list(zip(here[leaking][:5].tolist(), there[leaking][:5].tolist(), strict=True))
    return NearDuplicates(
        int(held_out[leak].sum()),
        int(train[near[0]].sum()),
        int(held_out[near[1]].sum()),
        tuple((int(first[1][a]), int(first[0][b])) for a, b in dict.fromkeys(examples[:5])),
    )


def _pairs(hashes: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (a, b) of distinct hashes that differ in at most `radius` bits; a pair may come more than once.

    For every two of the eight bands, hashes that agree in both stand beside each other once they are sorted.
    """
    bands = np.ascontiguousarray(hashes).view(np.uint16).astype(np.uint32)
    for i, j in combinations(range(_BANDS), 2):
        bucket = bands[:, i] << np.uint32(16) | bands[:, j]
        order = np.argsort(bucket, kind="stable")
        bucket = bucket[order]
        for shift in range(1, _COMPARED + 1):
            here = np.flatnonzero(bucket[shift:] == bucket[:-shift])
            if not len(here):
                break
            a, b = order[here], order[here + shift]
            close = np.bitwise_count(hashes[a] ^ hashes[b]).sum(1) <= radius
            yield a[close], b[close]
