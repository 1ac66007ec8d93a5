"""What exact and approximate scores share: numbers of a candidate, where it lies, its parents' weights, checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import _kernel
from ldsaug_ray.lds._compiled import add_parents, in_threads
from ldsaug_ray.lds.interpolation import KINDS, shares
from ldsaug_ray.lds.latents import squared_gaps, squared_norms, validate_latents

Array = NDArray[np.float64]

BACKENDS = ("exact", "faiss")
TILE_ROWS, TILE_LATENTS = 32768, 1024  # parents and latents at a time: 128 MiB of inner products at most
# Beyond these an exponent of float32 latents could overflow float64
SMALLEST_SIGMA, LARGEST_SIGMA, LARGEST_ALPHA = 1e-100, 1e100, 1e6


@dataclass(frozen=True)
class PairScores:
    """What is known of each candidate; float64 arrays of one shape, [P, A, S] (pairs, alphas, sigmas) or [U, V, A, S].

    With w_k = exp(-||z - z_k||^2 / 2 sigma^2), i and j the candidate's own parents:

    log_lds                    log(1/N sum over all k of w_k); finite, at most 0
    log_lds_excluding_parents  log(1/N sum over k not in {i, j} of w_k): over N too, so that
                               exp(log_lds) = exp(log_lds_excluding_parents) + (w_i + w_j) / N; -inf only when N = 2
    parent_share               (w_i + w_j) / sum of all w_k, 0..1
    effective_neighbours       (sum w_k)^2 / sum w_k^2 over all k, 1..N
    """

    log_lds: Array
    log_lds_excluding_parents: Array
    parent_share: Array
    effective_neighbours: Array


@dataclass(frozen=True)
class Geometry:
    """Pairs and where their candidates lie: what the parents' own weights follow from, exactly.

    gaps: float64[P], squared distance between the parents; norms: float64[P, 2], theirs, 0 where not needed.
    """

    mix: _kernel.Mix
    gaps: Array
    norms: Array

    @classmethod
    def of(cls, train: NDArray[np.floating], pairs: NDArray[np.int64], alphas: Array, kind: Interpolation) -> Geometry:
        """Candidates of the pairs at every alpha."""
        gaps = squared_gaps(train, pairs)
        u, v = shares(kind, alphas, train, pairs)
        if kind == "slerp":
            return cls(_kernel.Mix(u, v, 1 - u - v), gaps, squared_norms(train, pairs))
        tenths = np.rint(10 * alphas).astype(np.int64)
        on_grid = bool((np.abs(10 * alphas - tenths) < 1e-9).all() and (tenths >= 1).all() and (tenths <= 9).all())
        nothing = np.broadcast_to(0.0, u.shape)
        return cls(_kernel.Mix(u, v, nothing, tenths if on_grid else None), gaps, np.broadcast_to(0.0, pairs.shape))


def with_parents(geometry: Geometry, others: _kernel.Sums, precisions: Array, n: int) -> PairScores:
    """Scores from the sums over all of n latents but the parents, arrays [P, A, S]."""
    out = PairScores(*(np.empty(others.total.shape) for _ in fields(PairScores)))
    mix = geometry.mix
    in_threads(
        add_parents,
        len(geometry.gaps),
        geometry.gaps,
        geometry.norms,
        mix.u,
        mix.v,
        mix.w,
        precisions,
        others.base,
        others.total,
        others.squares,
        n,
        out.log_lds,
        out.log_lds_excluding_parents,
        out.parent_share,
        out.effective_neighbours,
    )
    return out


def precisions_of(sigmas: Sequence[float] | Array) -> Array:
    """1 / 2 sigma^2. Raises ConfigError unless every sigma is a positive number."""
    x = checked_numbers(sigmas, "sigmas", LARGEST_SIGMA)
    if (x < SMALLEST_SIGMA).any():
        raise ConfigError(f"every sigma must be positive (at least {SMALLEST_SIGMA:g}); found {x.min():g}")
    return 0.5 / x**2


def log_mean(sums: _kernel.Sums, n: int) -> Array:
    """log(1/n sum of weights); -inf for no weights. Rounding must not push a mean of values <= 1 above 1."""
    log_total = np.log(sums.total, out=np.zeros_like(sums.total), where=sums.total > 0)
    return np.minimum(log_total - np.log(n) - sums.base, 0.0)


def checked_points(points: ArrayLike, train: ArrayLike) -> NDArray[np.floating]:
    """The points, float[M, d]. Raises InputError unless they are like the training latents."""
    x = np.asarray(points)
    d = np.shape(train)[1]
    if x.ndim != 2 or x.shape[1] != d:
        raise InputError(f"points must be [M, {d}] like the training latents; found shape {x.shape}")
    return validate_latents(x, name="the points") if len(x) else x


def checked_numbers(values: Sequence[float] | Array, name: str, largest: float) -> Array:
    """A list of numbers, float64[n]. Raises ConfigError unless there are some, finite, at most `largest` in size."""
    try:
        x = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        x = np.empty(0)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ConfigError(f"{name} must be a list of at least one finite number; found {values!r}")
    if np.abs(x).max() > largest:
        raise ConfigError(f"{name} must be at most {largest:g} in size; found {values!r}")
    return x


def check_device(device: str) -> None:
    """Raise ConfigError unless this is a device on which scores can be computed here."""
    try:
        kind = torch.device(device).type
    except RuntimeError as e:
        raise ConfigError(f"unknown device {device!r}; possible: cpu, cuda, cuda:0, …") from e
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device {device!r} is not at hand; possible: cpu, and cuda where PyTorch finds a GPU")


def check_settings(
    backend: str, dtype: DTypeLike, interpolation: str, tile_rows: int, tile_latents: int, device: str = "cpu"
) -> None:
    """Raise ConfigError unless scores can be computed so."""
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; possible: {', '.join(BACKENDS)}")
    try:
        known = np.dtype(dtype) in (np.float32, np.float64)
    except TypeError:
        known = False
    if not known:
        raise ConfigError(f"dtype must be float32 or float64; found {dtype!r}")
    if backend == "faiss" and (np.dtype(dtype) != np.float32 or device != "cpu"):
        raise ConfigError(f"backend faiss computes in float32 on CPUs; found dtype {dtype!r} and device {device!r}")
    check_device(device)
    if interpolation not in KINDS:
        raise ConfigError(f"unknown interpolation {interpolation!r}; possible: {', '.join(KINDS)}")
    if tile_rows < 1 or tile_latents < 1:
        raise ConfigError(f"tile_rows and tile_latents must be at least 1; found {tile_rows} and {tile_latents}")
