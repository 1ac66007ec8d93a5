"""Numba keeps what it compiles: one process does it before tests go in several, each of which would do it anew."""

from __future__ import annotations

import numpy as np

from ldsaug_ray import lds, measure

z = np.random.default_rng(0).normal(size=(600, 32)).astype(np.float32)
pairs = np.arange(80).reshape(40, 2)
for dtype in ("float32", "float64"):
    for curve in ("linear", "slerp"):
        for alphas in ([0.1, 0.5], [0.25]):
            lds.score_pairs(z, pairs, alphas, [0.3, 6], interpolation=curve, dtype=dtype)
    lds.score_pairs(z.astype(dtype), pairs, [0.5], [2])
    lds.score_points(z, z[:40] + 1, [2], dtype=dtype)
    lds.approximate_pairs(z.astype(dtype), pairs, [0.5], [2])
    measure(z[:200].astype(dtype), z[200:400].astype(dtype), train=z[400:].astype(dtype))
