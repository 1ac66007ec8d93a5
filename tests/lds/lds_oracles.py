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
    n = len(train)
    shape = (len(pairs), len(alphas), len(sigmas))
    names = ("log_lds", "log_lds_excluding_parents", "parent_share", "effective_neighbours")
    out = {name: np.empty(shape) for name in names}
    z64 = train.astype(np.float64)
    for p, (i, j) in enumerate(pairs):
        for a, alpha in enumerate(alphas):
            z = point(z64[i], z64[j], alpha, kind)[None]
            for s, sigma in enumerate(sigmas):
                x = log_kernel(z64, z, sigma)[0]
                others = np.delete(x, [i, j])
                out["log_lds"][p, a, s] = logsumexp(x) - np.log(n)
                out["log_lds_excluding_parents"][p, a, s] = logsumexp(others) - np.log(n) if len(others) else -np.inf
                out["parent_share"][p, a, s] = np.exp(logsumexp(x[[i, j]]) - logsumexp(x))
                out["effective_neighbours"][p, a, s] = np.exp(2 * logsumexp(x) - logsumexp(2 * x))
    return out
