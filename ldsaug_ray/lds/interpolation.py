"""The curve between two latents on which candidates lie: the straight line (the paper's), or the arc about the origin.

Every candidate is z = u z_i + v z_j. On the line u = 1 - alpha, v = alpha; by spherical interpolation (Shoemake 1985)
u = sin((1 - alpha) omega) / sin(omega), v = sin(alpha omega) / sin(omega) with omega the angle between the parents,
which keeps the norm from shrinking half-way.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds.latents import angles, check_rows, row_blocks, validate_latents
from ldsaug_ray.lds.noise import Noise

Array = NDArray[np.float64]
Index = NDArray[np.int64]
KINDS: tuple[Interpolation, ...] = get_args(Interpolation)
# sin(omega) below which the arc is taken as the line: parallel parents, and opposite ones, which have no arc
STRAIGHT = 1e-4


def shares(kind: Interpolation, alphas: Array, train: NDArray[np.floating], pairs: Index) -> tuple[Array, Array]:
    """u and v of every pair and alpha, float64[P, A] each.

    alphas: float64[A] or [P, A]; train: float[N, d]; pairs: int64[P, 2]. Raises ConfigError for another kind.
    """
    shape = (len(pairs), alphas.shape[-1])
    if kind == "linear":
        return np.broadcast_to(1 - alphas, shape), np.broadcast_to(alphas, shape)
    if kind not in KINDS:
        raise ConfigError(f"unknown interpolation {kind!r}; possible: {', '.join(KINDS)}")
    angle = angles(train, pairs)[:, None]
    sine = np.sin(angle)
    bent = sine > STRAIGHT
    sine = np.where(bent, sine, 1.0)
    u = np.where(bent, np.sin((1 - alphas) * angle) / sine, 1 - alphas)
    return u, np.where(bent, np.sin(alphas * angle) / sine, alphas)


def interpolate(
    train: ArrayLike,
    i: ArrayLike,
    j: ArrayLike,
    alpha: ArrayLike,
    kind: Interpolation = "linear",
    noise: Noise | None = None,
    ids: Index | None = None,
) -> NDArray[np.float32]:
    """Candidates between z_i and z_j, float32[M, d]: (1 - alpha) z_i + alpha z_j on the paper's line.

    train: float[N, d]; i, j: int64[M] row numbers; alpha: float[M]; scalars broadcast; noise: what is added, by the
    candidates' ids, int64[M]. Computed in float64, rounded
    once. Raises InputError for invalid latents or a row number outside 0..N-1, ConfigError for another kind.
    """
    z = validate_latents(train)
    try:
        i_, j_, alpha_ = np.broadcast_arrays(np.atleast_1d(i), np.atleast_1d(j), np.atleast_1d(alpha))
    except ValueError as error:
        raise InputError(f"i, j and alpha must be as long as each other: {error}") from error
    if i_.ndim != 1:
        raise InputError(f"i, j and alpha must be 1-D; found shape {i_.shape}")
    check_rows(i_, len(z), "i")
    check_rows(j_, len(z), "j")
    out = np.empty((len(i_), z.shape[1]), np.float32)
    for rows in row_blocks(*out.shape):
        pairs = np.stack([i_[rows], j_[rows]], axis=1).astype(np.int64)
        u, v = shares(kind, alpha_[rows, None].astype(np.float64), z, pairs)
        points = u * z[pairs[:, 0]] + v * z[pairs[:, 1]]
        if noise is not None:
            assert ids is not None, "noise is a function of the id"
            points += noise.of(ids[rows], z.shape[1])
        out[rows] = points
    return out
