"""What the rules that look at the latents share: a seeded sample of them, a grid of bandwidths, nearest others.

A sample against all latents keeps these rules cheap.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.lds.diagnostics import latent_norms
from ldsaug_ray.lds.findings import WHERE_LATENTS_COINCIDE
from ldsaug_ray.lds.latents import row_blocks, squared_gaps, validate_latents

Array = NDArray[np.float64]

SAMPLED_LATENTS = 2048
GRID, FINER_GRID = 32, 16  # bandwidths of the first pass over distances, and of each that refines it
LARGEST_OF_SPREAD = 2.0  # the grid's ends, as multiples of the root mean square distance from the mean
SMALLEST_OF_SPREAD = 0.02
# In d dimensions the nearest neighbour alone would put leave_one_out at its distance / sqrt(d)
SMALLEST_OF_NEAREST = 0.3
_TAG = int.from_bytes(b"bandwidth", "big")  # keeps these draws apart from other uses of the same seed


def nearest_distances(train: ArrayLike, rows: NDArray[np.int64]) -> Array:
    """Distance of each latent of `rows`, int64[M], to the nearest other of `train`, float64[M].

    FAISS finds the neighbour in float32 coordinates around the mean; the distance to it is then taken directly.
    Raises InputError for invalid latents, or fewer than two.
    """
    import faiss

    z = validate_latents(train)
    if len(z) < 2:
        raise InputError("a nearest other latent needs at least 2 training latents; found 1")
    mean, spread = z.mean(axis=0, dtype=np.float64), _spread(z) or 1.0

    def centred(some: NDArray[np.floating]) -> NDArray[np.float32]:  # of size 1: squares of float32 may overflow
        return np.ascontiguousarray((some - mean) / spread, np.float32)

    index = faiss.IndexFlatL2(z.shape[1])
    for block in row_blocks(*z.shape):
        index.add(centred(z[block]))
    out = np.empty(len(rows))
    for block in row_blocks(len(rows), z.shape[1]):
        own = rows[block]
        found = index.search(centred(z[own]), 2)[1]
        other = np.where(found[:, 0] == own, found[:, 1], found[:, 0])  # with duplicates itself may be second, or third
        out[block] = np.sqrt(squared_gaps(z, np.stack([own, other], axis=1)))
    return out


def grid_of(z: NDArray[np.floating], rule: str) -> Array:
    """Bandwidths to try, float64[GRID], ascending by a constant factor."""
    spread = _spread(z)
    if spread == 0:
        raise InputError(
            f"score.sigma.rule: {rule} finds no sigma: all {len(z)} latents are equal, and LDS would be 1 "
            f"everywhere for any sigma; {WHERE_LATENTS_COINCIDE}"
        )
    smallest = min(SMALLEST_OF_SPREAD, SMALLEST_OF_NEAREST / math.sqrt(z.shape[1]))
    return np.geomspace(smallest * spread, LARGEST_OF_SPREAD * spread, GRID)


def _spread(z: NDArray[np.floating]) -> float:
    """Root mean square distance of the latents from their mean."""
    return float(np.sqrt(np.mean(latent_norms(z) ** 2)))


def sample_of(n: int, seed: int) -> NDArray[np.int64]:
    """At most SAMPLED_LATENTS different rows of n, ascending."""
    if n <= SAMPLED_LATENTS:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, _TAG]).choice(n, SAMPLED_LATENTS, replace=False, shuffle=False))


def duplicates_among(distances: Array) -> str:
    """How many of some distances to the nearest other are 0, in words."""
    return f"{int((distances == 0).sum())} of {len(distances)} latents looked at have an exact duplicate"
