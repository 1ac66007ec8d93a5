"""Weights by LDS and draws without regard to it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import lds_weights, log_mean_weight
from ldsaug_ray.selection import threshold
from ldsaug_ray.selection.random import random_candidates


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
def test_a_power_of_the_density_with_mean_one(power: float) -> None:
    lds = np.random.default_rng(0).uniform(1e-6, 0.3, 50)
    found = lds_weights(np.log(lds), power)
    np.testing.assert_allclose(found, lds**power / (lds**power).mean(), rtol=1e-12)
    assert found.dtype == np.float64
    parts = [np.exp(power * part - log_mean_weight(np.log(lds), power)) for part in np.split(np.log(lds), [7, 30])]
    np.testing.assert_allclose(np.concatenate(parts), found, rtol=1e-12)


def test_densities_below_the_smallest_float() -> None:
    logs = np.array([-5000.0, -5000.0 - np.log(3), -9000.0])
    exact = [Fraction(1), Fraction(1, 3), Fraction(0)]
    want = [float(3 * x / sum(exact)) for x in exact]
    np.testing.assert_allclose(lds_weights(logs, 1.0), want, rtol=1e-12)
    assert lds_weights(logs, 1e300).tolist() == [3.0, 0.0, 0.0]
    assert lds_weights(np.empty(0), 2.0).shape == (0,)


def test_bad_weights() -> None:
    for logs, word in ((np.array([0.0, np.nan]), "row 1"), (np.array([-np.inf]), "row 0"), (np.zeros((2, 2)), "shape")):
        with pytest.raises(InputError, match=word):
            lds_weights(logs, 1.0)
    for power in (-1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match=r"finetune\.lds_weight"):
            lds_weights(np.zeros(3), power)


def test_draws_are_different_ids_and_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = random_candidates(1000, 100, 7), random_candidates(1000, 400, 7)
    assert len(set(few)) == 100
    assert (np.diff(few) > 0).all()
    assert (few[0] >= 0) & (few[-1] < 1000)
    assert set(few) < set(many)
    assert set(random_candidates(1000, 100, 8)) != set(few)
    assert random_candidates(30, 30, 0).tolist() == list(range(30))
    assert random_candidates(30, 0, 0).tolist() == []
    for module in (threshold, __import__("ldsaug_ray.selection.random", fromlist=["x"])):
        monkeypatch.setattr(module, "SLACK", 17)
    np.testing.assert_array_equal(random_candidates(1000, 100, 7), few)


def test_every_candidate_and_alpha_is_drawn_equally_often() -> None:
    counts = np.zeros(90)
    for seed in range(2000):
        counts[random_candidates(90, 18, seed)] += 1
    assert counts.sum() == 2000 * 18
    assert chisquare(counts).pvalue > 1e-3
    assert chisquare(counts.reshape(10, 9).sum(0)).pvalue > 1e-3


def test_bad_draws() -> None:
    for n, count, seed in ((10, 11, 0), (10, -1, 0), (10, 5, -1), (10, 5, 2**64)):
        with pytest.raises(ConfigError):
            random_candidates(n, count, seed)
