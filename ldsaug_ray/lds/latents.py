"""The training latents as an array: what is accepted, rows read in blocks, distances between two of them.

Everything here streams over blocks of rows, so a memory-mapped or borrowed read-only array is never copied whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import _compiled

BLOCK_BYTES = 16 * 2**20  # float64 bytes of one block of rows
LARGEST = float(np.finfo(np.float32).max)  # values beyond it are not float32, and their squares may overflow


def row_blocks(n_rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `n_rows` rows of `width` float64 values, each at most BLOCK_BYTES (or one row)."""
    step = max(1, BLOCK_BYTES // (8 * max(1, width)))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def validate_latents(
    train: ArrayLike, *, keys: Sequence[str] | None = None, name: str = "the training latents"
) -> NDArray[np.floating]:
    """Check latents [N, d] and return them as an array, copied only if they were not floats in contiguous rows.

    float32 and float64 and read-only arrays pass as they are; other real numbers become float64.
    Raises InputError unless 2-D with N, d >= 1 and every value finite and within float32's range; the message names
    the first bad row (by `keys[row]` too, where `keys` gives each row's name) and counts the bad rows.
    """
    z = np.asarray(train)
    if z.ndim != 2:
        raise InputError(f"{name} must be a 2-D array [N, d]; found shape {z.shape}")
    if z.dtype.kind not in "fiub":
        raise InputError(f"{name} must be real numbers (float32); found dtype {z.dtype}")
    if z.shape[0] < 1 or z.shape[1] < 1:
        raise InputError(f"{name} must have at least one row and one column; found shape {z.shape}")
    if z.dtype not in (np.float32, np.float64):
        z = z.astype(np.float64)
    z = np.ascontiguousarray(z)
    good = np.empty(len(z), bool)
    _compiled.in_threads(_compiled.rows_within, len(z), z, LARGEST, good)
    if not good.all():
        bad = ~good
        row = int(np.argmax(bad))
        key = f" (key {keys[row]})" if keys is not None else ""
        raise InputError(
            f"{name} hold NaN, infinite or out-of-float32-range values in {int(bad.sum())} of {len(z)} rows, "
            f"first in row {row}{key}; encode again, or drop those rows"
        )
    return z


def check_rows(index: NDArray[Any], n: int, name: str) -> None:
    """Raise InputError unless `index` holds whole numbers in 0..n-1."""
    if index.dtype.kind not in "iu" and index.size:
        raise InputError(f"{name} must hold row numbers (int64); found dtype {index.dtype}")
    outside = (index < 0) | (index >= n) if index.size else np.zeros(0, bool)
    if outside.any():
        at = int(np.argmax(outside))
        raise InputError(f"{name}[{at}] = {index.flat[at]} is no row of {n} latents (0..{n - 1})")


def check_pairs(pairs: ArrayLike, n: int) -> NDArray[np.int64]:
    """Pairs as int64[P, 2]; InputError unless all are two different rows of n latents."""
    p = np.asarray(pairs)
    if p.ndim != 2 or p.shape[1] != 2:
        raise InputError(f"pairs must be an array [P, 2] of row numbers; found shape {p.shape}")
    check_rows(p[:, 0], n, "pairs[:, 0]")
    check_rows(p[:, 1], n, "pairs[:, 1]")
    same = p[:, 0] == p[:, 1]
    if same.any():
        at = int(np.argmax(same))
        raise InputError(f"pair {at} joins latent {p[at, 0]} with itself ({int(same.sum())} such); i and j must differ")
    return p.astype(np.int64, copy=False)


def squared_gaps(train: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distances between parents, float64[P], by direct differences: exact even far from the origin."""
    out = np.empty(len(pairs))
    _compiled.in_threads(_compiled.squared_gaps, len(pairs), train, pairs[:, 0], pairs[:, 1], out)
    return out


def angles(train: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Angle between the parents at the origin, radians, float64[P]; 0 where one of them is the origin."""
    out = np.empty(len(pairs))
    _compiled.in_threads(_compiled.angles, len(pairs), train, pairs[:, 0], pairs[:, 1], out)
    return out


def squared_norms(train: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared norms of both parents, float64[P, 2]."""
    out = np.empty((len(pairs), 2))
    for rows in row_blocks(len(pairs), 2 * train.shape[1]):
        both = train[pairs[rows]].astype(np.float64)
        out[rows] = np.einsum("psd,psd->ps", both, both)
    return out
