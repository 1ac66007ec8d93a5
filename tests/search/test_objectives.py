"""Objectives: signs and weights, and what is read from a run's metrics."""

from __future__ import annotations

import pytest

from ldsaug_ray.errors import InputError
from ldsaug_ray.search.objectives import measures_of_run, needs_training, objective_values


def test_less_is_better_and_weights_count():
    measures = {"frechet": 12.0, "coverage": 0.25, "a_nearer": 0.6}
    assert objective_values([{"frechet": 1, "coverage": 8}, {"a_nearer": 2}], measures) == [10.0, 1.2]
    assert needs_training([{"a_nearer": 1.0}, {"frechet": 1.0}])
    assert not needs_training([{"a_nearer": 1.0, "a_likelihood": 1.0}])
    told = r"recall has no value for these images; evaluate/metrics\.json of the trial tells why$"
    with pytest.raises(InputError, match=told):
        objective_values([{"recall": 1.0}], measures)
    with pytest.raises(InputError, match=r"a_likelihood has no value for these images$"):  # no file tells why
        objective_values([{"a_likelihood": 1.0}], {"a_likelihood": None})


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
