"""Objectives: signs and weights, and the measures of A against a few lines of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ldsaug_ray.errors import InputError
from ldsaug_ray.search.objectives import (
    label_gap,
    likelihood_gain,
    measures_of_run,
    nearer_than_real,
    needs_training,
    objective_values,
)


def test_less_is_better_and_weights_count():
    measures = {"frechet": 12.0, "coverage": 0.25, "a_nearer": 0.6}
    assert objective_values([{"frechet": 1, "coverage": 8}, {"a_nearer": 2}], measures) == [10.0, 1.2]
    assert needs_training([{"a_nearer": 1.0}, {"frechet": 1.0}])
    assert not needs_training([{"a_nearer": 1.0, "a_likelihood": 1.0}])
    with pytest.raises(InputError, match="recall has no value"):
        objective_values([{"recall": 1.0}], measures)


def test_measures_of_a_run():
    shares = {"finetuned": {"value": 0.7}, "test": {"value": 0.4}}
    told = {
        "sets": {"finetuned": {"n": 5, "frechet": {"value": 3.0}, "recall": {"value": None}}},
        "attributes": {"Male": {"shares": shares}, "Young": {"shares": {**shares, "finetuned": {"value": 0.3}}}},
    }
    found = measures_of_run(told)
    assert found == {"frechet": 3.0, "recall": None, "attribute_gap": pytest.approx(0.2)}
    told["attributes"]["Male"]["shares"]["finetuned"] = {"value": None}
    assert measures_of_run(told)["attribute_gap"] is None


def test_likelihood_gain_is_that_of_the_mixture():
    rng = np.random.default_rng(0)
    train, held_out, of_a = (rng.standard_normal((n, 3)) for n in (40, 25, 15))

    def density(centres: np.ndarray) -> np.ndarray:
        squared = ((held_out[:, None] - centres[None]) ** 2).sum(-1)
        return np.exp(-squared / (2 * 0.7**2)).mean(1)

    want = (np.log(density(np.concatenate([train, of_a]))) - np.log(density(train))).mean()
    assert likelihood_gain(train, held_out, of_a, 0.7) == pytest.approx(want, abs=1e-5)


def test_label_gap_weighs_parents_by_nearness():
    parents = np.array([[1, -1], [1, 1], [0, 1], [-1, -1]], np.int8)  # the third has an unlabelled parent
    alphas = np.array([0.25, 0.5, 0.5, 0.5])
    real = np.array([1, -1, -1, -1, 0], np.int8)
    assert label_gap(parents, alphas, real) == pytest.approx((0.75 + 1 + 0) / 3 - 0.25)
    assert label_gap(parents * 0, alphas, real) is None
    assert label_gap(parents, alphas, real * 0) is None


def test_copies_lie_nearer_than_real_latents():
    rng = np.random.default_rng(1)
    train, held_out, fresh = (rng.standard_normal((n, 6)).astype(np.float32) for n in (300, 200, 400))
    copies = train[:100] + 1e-3 * rng.standard_normal((100, 6)).astype(np.float32)
    assert nearer_than_real(train, held_out, copies, 0) == 1.0
    assert nearer_than_real(train, held_out, fresh, 0) == pytest.approx(0.5, abs=0.06)
    gaps = [np.linalg.norm(train[None] - x[:, None], axis=-1).min(1) for x in (fresh, held_out)]
    want = (gaps[0][:, None] < gaps[1][None]).mean()
    assert nearer_than_real(train, held_out, fresh, 0) == pytest.approx(want, abs=1e-3)
