from __future__ import annotations

import numpy as np
import pytest
from cleanfid.fid import kernel_distance as clean_fid_kernel_distance
from torch_fidelity.metric_kid import kernel_mmd

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import kernel_distance
from ldsaug_ray.metrics.kernel_distance import draw_subsets, subset_distances


def sets(n: int, m: int, d: int = 16, shift: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + 1, rng.standard_normal((m, d)) + 1 + shift


def test_equals_clean_fid_on_the_same_subsets() -> None:
    a, b = sets(120, 100)
    got = kernel_distance(a, b, subsets=7, subset_size=30, seed=4)
    rows = draw_subsets(120, 100, 7, 30, 4)
    # a subset whose size is the whole of both sets leaves clean-fid nothing to draw but the order
    theirs = [
        clean_fid_kernel_distance(b[rb], a[ra], num_subsets=1, max_subset_size=30) for ra, rb in zip(*rows, strict=True)
    ]
    np.testing.assert_allclose(subset_distances(a, b, *rows), theirs, rtol=1e-11)
    assert got.distance == pytest.approx(np.mean(theirs))
    settings = {
        "kid_kernel": "poly",
        "kid_kernel_poly_degree": 3,
        "kid_kernel_poly_gamma": None,
        "kid_kernel_poly_coef0": 1,
    }
    other = [kernel_mmd(a[ra], b[rb], **settings) for ra, rb in zip(*rows, strict=True)]
    np.testing.assert_allclose(subset_distances(a, b, *rows), other, rtol=1e-11)


def test_sums_by_hand() -> None:
    a, b = sets(5, 4, 3)
    rows = draw_subsets(5, 4, 1, 4, 0)
    x, y = a[rows[0][0]], b[rows[1][0]]

    def k(p: np.ndarray, q: np.ndarray) -> float:
        return float((p @ q / 3 + 1) ** 3)

    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    want = np.mean([k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs])
    want -= 2 * np.mean([k(p, q) for p in x for q in y])
    np.testing.assert_allclose(subset_distances(a, b, *rows), [want])


def test_standard_error_is_that_of_fresh_sets() -> None:
    """Over 150 fresh pairs of sets the distances spread as much as the standard error says."""
    found = [kernel_distance(*sets(100, 100, 4, 0.5, seed), subsets=40, subset_size=50) for seed in range(150)]
    spread = np.std([f.distance for f in found], ddof=1)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(spread, rel=0.25)


def test_unbiased_where_there_is_no_difference() -> None:
    found = [kernel_distance(*sets(40, 40, 6, 0.0, seed), subsets=20).distance for seed in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found, ddof=1) / 200**0.5
    assert min(found) < 0


def test_seeded_and_capped() -> None:
    a, b = sets(60, 50)
    one = kernel_distance(a, b, seed=1)
    assert one == kernel_distance(a, b, seed=1)
    assert one.distance != kernel_distance(a, b, seed=2).distance
    assert (one.subset_size, one.subsets) == (25, 100)
    collapsed = kernel_distance(a, np.ones((10, 16)))
    assert "all 10 images have the same features" in collapsed.notes[0]


def test_bad_input() -> None:
    a, b = sets(60, 50)
    with pytest.raises(InputError, match="features_b: 3 images; kernel distance needs at least 4"):
        kernel_distance(a, b[:3])
    with pytest.raises(InputError, match="16 dimensions, features_b 15"):
        kernel_distance(a, b[:, :15])
    with pytest.raises(InputError, match="NaN"):
        kernel_distance(a, b * np.nan)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        kernel_distance(a, b, subsets=1)
