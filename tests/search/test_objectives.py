"""Objectives: signs and weights, and what is read from a run's metrics."""

from __future__ import annotations

import pytest

from ldsaug_ray.config import Evaluate
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import Attribute, Evaluated, Reading, SetReadings, UsedExtractor
from ldsaug_ray.search.objectives import (
    check_objectives,
    measures_in,
    measures_of_run,
    needs_training,
    objective_values,
)


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
    def told(of_male: float | None) -> Evaluated:
        shares = {
            name: Attribute({}, {"finetuned": Reading(share), "test": Reading(0.4)})
            for name, share in {"Male": of_male, "Young": 0.3}.items()
        }
        readings = {"frechet": Reading(3.0), "recall": Reading(None)}
        return Evaluated(UsedExtractor("n", 2), 5, 3, {"finetuned": SetReadings(5, readings)}, attributes=shares)

    assert measures_of_run(told(0.7)) == {
        "frechet": 3.0,
        "recall": None,
        "attribute_gap": pytest.approx(0.2),
        "downstream": None,
    }
    assert measures_of_run(told(None))["attribute_gap"] is None


def test_ones_own_measure_can_be_sought(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from ldsaug_ray.metrics import Measure, MeasureOfA, Reading\n"
    text += "Own = Measure(name='of_mine', title='mine', better='more', take=lambda s: Reading(1.0))\n"
    text += "Size = MeasureOfA(name='size', title='size', better='less', prepare=len, take=len)\n"
    (tmp_path / "of_objectives.py").write_text(text)
    own, size = "of_objectives:Own", "of_objectives:Size"
    assert objective_values([{own: 2, "frechet": 1}], {"of_mine": 4.0, "frechet": 10.0}) == [2.0]
    assert measures_in([{own: 2, "frechet": 1}, {size: 1}]) == ["of_mine", "frechet", "size"]
    assert needs_training([{own: 1}])
    assert not needs_training([{size: 1}])
    check_objectives([{own: 1}, {size: 1}], Evaluate(measures=(own,)))
    check_objectives([{"frechet": 1, "authenticity": 0.4}], Evaluate())  # fewer copies at a price in Fréchet distance
    assert objective_values([{"frechet": 1, "authenticity": 0.4}], {"frechet": 30.0, "authenticity": 50.0}) == [10.0]
    for path, why in {
        own: "is not measured; name it in evaluate.measures too",
        "no_such": "unknown measure 'no_such'; possible: a_attribute_gap, ",
        "c_t": "c_t has no direction that is better; possible: .*coverage",
        "attribute_gap": r"needs evaluate\.attributes",
    }.items():
        with pytest.raises(ConfigError, match=rf"tune\.objectives: .*{why}"):
            check_objectives([{path: 1}], Evaluate())
