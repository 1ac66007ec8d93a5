"""Intervals over images: the terms of a measure are its derivatives; the bootstrap of a mean has the mean's error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ldsaug_ray.metrics import MEASURES, OF_SETS, Measure, Sample, intervals_of, measure_copies, measure_set
from ldsaug_ray.metrics.bootstrap import redrawn_means
from ldsaug_ray.metrics.frechet import frechet_distance, frechet_terms


def weighted_frechet(x: np.ndarray, y: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    """By its definition, for images of these weights, which add up to 1 on each side."""
    means, covariances = [], []
    for points, weights in ((x, w), (y, v)):
        n, mean = len(points), weights @ points
        means.append(mean)
        covariances.append((weights[:, None] * (points - mean)).T @ (points - mean) * n / (n - 1))
    root = sqrtm(covariances[0] @ covariances[1]).real
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))


def shifted(n: int, row: int, step: float) -> np.ndarray:
    """Weights 1/n, but `step` moved to one image from all."""
    return (1 - step) / n + step * (np.arange(n) == row)


def test_terms_of_the_frechet_distance_are_its_derivatives() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)) + 0.3, rng.normal(size=(30, 5)) * rng.uniform(0.5, 2, 5)
    even = np.full(40, 1 / 40), np.full(30, 1 / 30)
    assert weighted_frechet(x, y, *even) == pytest.approx(frechet_distance(x, y))
    of_x, of_y = frechet_terms(x, y)
    for row in range(5):
        slope = (
            weighted_frechet(x, y, shifted(40, row, 1e-5), even[1])
            - weighted_frechet(x, y, shifted(40, row, -1e-5), even[1])
        ) / 2e-5
        assert of_x[row] - of_x.mean() == pytest.approx(slope, rel=1e-5)
        slope = (
            weighted_frechet(x, y, even[0], shifted(30, row, 1e-5))
            - weighted_frechet(x, y, even[0], shifted(30, row, -1e-5))
        ) / 2e-5
        assert of_y[row] - of_y.mean() == pytest.approx(slope, rel=1e-5)


def test_error_of_the_frechet_distance_is_that_of_fresh_sets() -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((300, 4)), rng.standard_normal((200, 4)) * 1.3 + 0.4

    found = [frechet_distance(*draw(seed)) for seed in range(200)]
    errors = [(a.var() / len(a) + b.var() / len(b)) ** 0.5 for a, b in (frechet_terms(*draw(s)) for s in range(20))]
    assert np.mean(errors) == pytest.approx(np.std(found, ddof=1), rel=0.25)


def test_terms_of_copies() -> None:
    """With one cell C_T and `nearer` are shares of pairs: their terms by all pairs."""
    rng = np.random.default_rng(1)
    train, new, real = (rng.normal(size=(n, 3)) for n in (60, 40, 30))
    found = measure_copies(train, new, real, cells=1)
    above = found.generated.distances[:, None] > found.held_out.distances[None]
    unit = found.c_t.value / (above.mean() - 0.5)
    np.testing.assert_allclose(found.c_t.generated_terms, unit * (above.mean(1) - above.mean()), atol=1e-12)
    np.testing.assert_allclose(found.c_t.held_out_terms, unit * (above.mean(0) - above.mean()), atol=1e-12)
    assert found.authenticity == 100 * found.authentic.mean()
    sample = Sample(new, real, train)
    nearer = MEASURES.get("nearer")
    assert isinstance(nearer, Measure)
    assert nearer.terms is not None
    terms = nearer.terms(sample)
    np.testing.assert_allclose(terms["features"], -above.mean(1))
    np.testing.assert_allclose(terms["reference"], 1 - above.mean(0))


def test_redrawn_means_spread_as_the_mean_does() -> None:
    x = np.random.default_rng(0).exponential(size=(2, 150))
    moved = redrawn_means(x, seed=1, resamples=4000)
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=4 * x.std(axis=1).max() / 150**0.5 / 4000**0.5)
    np.testing.assert_allclose(moved.std(axis=0), x.std(axis=1) / 150**0.5, rtol=0.06)
    together = np.corrcoef(redrawn_means(np.stack([x[0], -x[0]]), resamples=200).T)  # the same draws for both
    assert together[0, 1] == pytest.approx(-1)


def test_intervals_of_a_set() -> None:
    rng = np.random.default_rng(2)
    made, real = rng.normal(size=(200, 4)) * 1.1, rng.normal(size=(150, 4))
    sharp = rng.exponential(size=200)
    sample = Sample(made, real, quality={"sharpness": sharp})
    found = measure_set(sample)
    limits = intervals_of(sample, found)
    assert list(limits) == list(found.readings)
    for name in ("precision", "recall", "density", "coverage", "sharpness", "kernel_distance"):  # means of many
        value, error = found.readings[name].value, found.readings[name].standard_error
        normal = (value - 1.96 * error, value + 1.96 * error)
        assert limits[name] == pytest.approx(normal, abs=max(0.35 * error, 1 / 150)), name  # an image is a step
    assert intervals_of(sample, found) == limits
    half = intervals_of(sample, found, level=0.5)["density"]
    assert half[1] - half[0] == pytest.approx(0.344 * (limits["density"][1] - limits["density"][0]), rel=0.12)


def test_a_built_in_measure_is_in_the_tables_by_its_place() -> None:
    built_in = [MEASURES.get(name) for name in MEASURES.names()]
    assert set(OF_SETS) == {m for m in built_in if isinstance(m, Measure)}
    places = [m.place for m in OF_SETS]
    assert places == sorted(set(places))
