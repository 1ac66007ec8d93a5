"""Brute force in float64, by direct differences: slow, obvious, and independent of the code under test."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp


def log_kernel(train: np.ndarray, points: np.ndarray, sigma: float) -> np.ndarray:
    """log w_k of each point, float64[M, N]"""
    gaps = points.astype(np.float64)[:, None] - train.astype(np.float64)[None]
    return -np.einsum("mnd,mnd->mn", gaps, gaps) / (2 * sigma**2)


def point(a: np.ndarray, b: np.ndarray, alpha: float, kind: str) -> np.ndarray:
    """The candidate between two float64 latents."""
    if kind == "linear":
        return (1 - alpha) * a + alpha * b
    unit_a, unit_b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    omega = 2 * np.arctan2(np.linalg.norm(unit_a - unit_b), np.linalg.norm(unit_a + unit_b))
    return (np.sin((1 - alpha) * omega) * a + np.sin(alpha * omega) * b) / np.sin(omega)


def score(
    train: np.ndarray, pairs: np.ndarray, alphas: list[float], sigmas: list[float], kind: str = "linear"
) -> dict[str, np.ndarray]:
    """All four arrays of `PairScores`, [P, A, S], with candidates kept in float64."""
    n, pairs = len(train), np.asarray(pairs)
    shape = (len(pairs), len(alphas), len(sigmas))
    names = ("log_lds", "log_lds_excluding_parents", "parent_share", "effective_neighbours")
    out = {name: np.empty(shape) for name in names}
    z64 = train.astype(np.float64)
    for start in range(0, len(pairs), 32):  # more would be a large array of differences
        some = slice(start, start + 32)
        parents = np.arange(len(pairs[some]))[:, None], pairs[some]
        for a, alpha in enumerate(alphas):
            z = np.stack([point(z64[i], z64[j], alpha, kind) for i, j in pairs[some]])
            for s, sigma in enumerate(sigmas):
                x = log_kernel(z64, z, sigma)
                whole = logsumexp(x, axis=1)
                others = x.copy()
                others[parents] = -np.inf
                out["log_lds"][some, a, s] = whole - np.log(n)
                left = logsumexp(others, axis=1) if n > 2 else -np.inf
                out["log_lds_excluding_parents"][some, a, s] = left - np.log(n)
                out["parent_share"][some, a, s] = np.exp(logsumexp(x[parents], axis=1) - whole)
                out["effective_neighbours"][some, a, s] = np.exp(2 * whole - logsumexp(2 * x, axis=1))
    return out
