from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm
from sklearn.cluster import KMeans

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import copying_test, measure_copies, nearest_training


def sets(seed: int = 0, n: int = 300, m: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, generated and held-out features of one distribution with three clusters."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.standard_normal((3, 5))
    return tuple(centres[rng.integers(0, 3, k)] + rng.standard_normal((k, 5)) for k in (n, m, m))


def test_nearest_and_authenticity_by_brute_force() -> None:
    t, g, h = sets()
    got = measure_copies(t, g, h, cells=3)
    for found, x in ((got.generated, g), (got.held_out, h)):
        d = cdist(x, t)
        np.testing.assert_array_equal(found.rows, d.argmin(1))
        np.testing.assert_allclose(found.distances, d.min(1), rtol=1e-12)
    own = cdist(t, t)
    np.fill_diagonal(own, np.inf)
    d = cdist(t, g)
    assert got.authenticity == 100 * np.mean(own.min(1)[d.argmin(0)] < d.min(0))
    u = mannwhitneyu(got.generated.distances, got.held_out.distances).statistic
    assert got.nearer == pytest.approx(1 - u / (len(g) * len(h)))
    closest = got.generated.closest(4)
    np.testing.assert_array_equal(closest, np.argsort(cdist(g, t).min(1), kind="stable")[:4])


def test_c_t_against_scipy_in_each_cell() -> None:
    t, g, h = sets(1)
    g = np.concatenate([g[:150], t[:50] + 0.01])
    got = copying_test(t, g, h, cells=3, seed=2)
    clusters = KMeans(3, n_init=4, random_state=2).fit(t)
    scores, weights = [], []
    for cell in range(3):
        inside = t[clusters.labels_ == cell]
        new, real = (cdist(x[clusters.predict(x) == cell], inside).min(1) for x in (g, h))
        p = mannwhitneyu(new, real, alternative="less", use_continuity=False, method="asymptotic").pvalue
        scores.append(norm.ppf(p))  # the lower tail's probability is that of the z-score
        weights.append(len(real) / len(h))
    np.testing.assert_allclose(got.by_cell, scores, rtol=1e-9)
    np.testing.assert_allclose(got.weights, weights)
    assert got.value == pytest.approx(np.dot(scores, weights))
    assert got.notes == ()


def test_ties_against_scipy() -> None:
    """Distances on a grid tie; so do whole numbers of features."""
    rng = np.random.default_rng(3)
    t, g, h = (rng.integers(0, 4, (k, 3)).astype(float) for k in (20, 90, 80))
    g += 0.5 * rng.integers(0, 2, g.shape)
    got = copying_test(t, g, h, cells=1)
    new, real = cdist(g, t).min(1), cdist(h, t).min(1)
    p = mannwhitneyu(new, real, alternative="less", use_continuity=False, method="asymptotic").pvalue
    assert got.value == pytest.approx(norm.ppf(p))


def test_tells_copies_from_new_images_and_from_poor_ones() -> None:
    t, g, h = sets(4)
    fresh = measure_copies(t, g, h, cells=3)
    copied = measure_copies(t, t[:200] + 0.05, h, cells=3)
    poor = measure_copies(t, g + 3 * np.random.default_rng(0).standard_normal(g.shape), h, cells=3)
    assert abs(fresh.c_t.value) < 3 / 3**0.5
    assert 0.4 < fresh.nearer < 0.6
    assert abs(fresh.authenticity - fresh.authenticity_held_out) < 15
    assert copied.c_t.value < -5
    assert copied.nearer > 0.95
    assert copied.authenticity < 5 < fresh.authenticity
    assert poor.c_t.value > 3
    assert poor.nearer < 0.2


def test_c_t_has_its_distribution_under_equality() -> None:
    """Z_U of one cell is about standard normal where generated and held-out images are alike."""
    values = []
    for seed in range(80):
        t, g, h = sets(seed, 60, 30)
        values.append(copying_test(t, g, h, cells=1).value)
    assert abs(np.mean(values)) < 3 / 80**0.5
    assert np.std(values, ddof=1) == pytest.approx(1, abs=0.25)


def test_thin_cells_do_not_count() -> None:
    t, g, h = sets(5)
    far = np.full((40, 5), 60.0) + np.random.default_rng(0).standard_normal((40, 5))
    got = copying_test(np.concatenate([t, far]), g, h, cells=4)  # no image but training ones in the fourth
    assert int(np.isnan(got.by_cell).sum()) == 1
    assert got.weights.sum() == pytest.approx(1)
    assert "1 of 4 cells have fewer than 20" in got.notes[0]
    with pytest.raises(InputError, match="none of 60 cells holds 20"):
        copying_test(t, g, h, cells=60)
    two = np.repeat([t[0], t[0] + 0.1], 3, axis=0)  # two distinct training images make two cells of five
    assert np.isfinite(copying_test(two, g, h, cells=5).by_cell).sum() == 2


def test_copies_among_training_images() -> None:
    t, g, h = sets(6)
    t[:150] = t[150:]
    got = measure_copies(t, g, h, cells=1)
    assert got.authenticity == 100  # every training image is its own neighbour's copy: nothing is nearer
    assert measure_copies(t, t[:30], h, cells=1).authenticity == 0


def test_bad_input() -> None:
    t, g, h = sets()
    with pytest.raises(InputError, match="generated features: 19 images; a comparison of distances needs at least 20"):
        measure_copies(t, g[:19], h)
    with pytest.raises(InputError, match="train features: 1 images"):
        measure_copies(t[:1], g, h)
    with pytest.raises(InputError, match="5 dimensions, held-out features 4"):
        measure_copies(t, g, h[:, :4])
    with pytest.raises(InputError, match="NaN"):
        nearest_training(t, g * np.nan)
    with pytest.raises(ValueError, match="cells must be at least 1"):
        copying_test(t, g, h, cells=0)
