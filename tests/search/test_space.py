"""The space of a search, and what is wrong with one before work starts."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.search.space import Dimension, Source, Space, check_values, space_of

GRID = {
    "score.sigma.scale": [0.1, 0.2, 0.5],
    "select.top_fraction": {"low": 0.1, "high": 0.4, "log": True, "values": 3},
}


def space(folder: Path, asked: dict[str, Any], **tune: Any) -> tuple[Source, Space]:
    tree = {"run_dir": "r", "data": {"source": "sklearn:digits"}, "tune": {"space": asked, **tune}}
    file = folder / "tune.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    source = Source.read(str(file), [])
    found = space_of(source.config())
    check_values(source, found)
    return source, found


def test_a_grid_has_every_combination_once(tmp_path):
    _, found = space(tmp_path, GRID)
    points = [tuple(p.values()) for p in found.grid()]
    assert points == [(s, f) for s in (0.1, 0.2, 0.5) for f in (0.1, 0.2, 0.4)]
    assert [p["score.sigma.scale"] for p in found.scorings()] == [0.1, 0.2, 0.5]


def test_a_range_of_bandwidths_becomes_few_values(tmp_path):
    asked = {"score.sigma.scale": {"low": 0.1, "high": 1.0, "log": True}, "finetune.mixing": {"low": 0.1, "high": 2}}
    _, found = space(tmp_path, asked, bandwidths=4)
    values = [p["score.sigma.scale"] for p in found.scorings()]
    np.testing.assert_allclose(values, np.geomspace(0.1, 1, 4), rtol=1e-5)
    assert found.size == np.inf
    with pytest.raises(ConfigError, match=r"finetune\.mixing: search: grid needs a list, or a range with `values`"):
        found.grid()


def test_without_settings_of_score_there_is_one_scoring(tmp_path):
    _, found = space(tmp_path, {"select.top_fraction": [0.1, 0.2]})
    assert found.scorings() == [{}]


def test_random_points_are_as_many_as_are_asked_for():
    """Of forty draws from forty points about a third would be equal to others."""
    found = Space((Dimension("a", tuple(range(10))), Dimension("b", ({"x": 1}, "y", None, True))))
    points = found.random(40, 3)
    assert sorted(map(str, points)) == sorted(map(str, found.grid()))
    assert found.random(41, 3) == points
    for n in (1, 10, 39):  # more are the same ones and others
        assert found.random(n, 3) == points[:n]
    assert found.random(40, 4) != points


def test_random_points_end_where_there_are_no_more(monkeypatch):
    whole = Space((Dimension("a", None, 3, 5, whole=True),))
    assert sorted(p["a"] for p in whole.random(24, 0)) == [3, 4, 5]
    few = Space((Dimension("a", None, 1.0, 1.00002),))  # six digits leave three numbers
    assert len(few.random(24, 0)) == 3
    monkeypatch.setattr("ldsaug_ray.search.space.DRAWS", 2)  # what draws do not meet comes from the grid
    listed = Space((Dimension("a", tuple(range(30))),))
    points = listed.random(30, 0)
    assert sorted(p["a"] for p in points) == list(range(30))
    assert listed.random(20, 0) == points[:20]


def test_dimensions_for_people_and_what_they_hold():
    listed = Dimension("a", (0.1, "x", None, {"rule": "fixed"}))
    assert listed.text == '0.1, "x", null, {"rule": "fixed"}'
    assert listed.holds({"rule": "fixed"})
    assert not listed.holds(0.2)
    ratios = Dimension("a", None, 1e-4, 0.01, log=True)
    assert ratios.text == "0.0001 to 0.01, by ratios"
    assert Dimension("a", None, 3, 5, whole=True).text == "whole numbers 3 to 5"
    assert ratios.holds(0.01)
    assert not ratios.holds(0.02)
    assert not ratios.holds("x")
    whole = Dimension("a", None, 0, 2, whole=True)  # a range that was wider before
    assert (whole.holds(1), whole.holds(1.0), whole.holds(0.7)) == (True, True, False)
    assert not Space((listed, Dimension("b", (1, 2)))).holds({"a": "x"})


def test_a_file_that_changes_later_changes_no_trial(tmp_path):
    source, _ = space(tmp_path, GRID)
    Path(source.path).write_text("run_dir: elsewhere")
    assert source.config({"select.top_fraction": 0.3}).run_dir == "r"


def test_random_points_lie_inside_and_depend_on_their_number_alone(tmp_path):
    asked = {
        "finetune.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "finetune.batch_size": {"low": 4, "high": 64, "log": True, "whole": True},
        "select.top_count": {"low": 3, "high": 5, "whole": True},
        "select.exclude_parents": [True, False],
    }
    source, found = space(tmp_path, asked)
    points = found.random(400, 7)
    assert found.random(40, 7) == points[:40]
    rates = np.array([p["finetune.learning_rate"] for p in points])
    assert 1e-4 <= rates.min() < 1.2e-4
    assert 0.8e-2 < rates.max() < 1e-2
    assert abs(np.log(rates).mean() - np.log(1e-3)) < 0.2
    assert {p["select.top_count"] for p in points} == {3, 4, 5}
    sizes = {p["finetune.batch_size"] for p in points}
    assert min(sizes) == 4
    assert max(sizes) <= 64
    assert {p["select.exclude_parents"] for p in points} == {True, False}
    config = source.config(points[0], {"run_dir": "elsewhere"})
    assert config.finetune.learning_rate == points[0]["finetune.learning_rate"]
    assert config.run_dir == "elsewhere"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, r"tune\.space names no setting"),
        ({"select.top_fractoin": [0.1]}, r"tune\.space at select\.top_fractoin=0\.1: unknown setting .*top_fraction"),
        ({"select.top_fraction": [0.1, 3]}, r"at select\.top_fraction=3: .*at most 1"),
        ({"select.tau": {"low": 0.1, "high": 1.5}}, r"at select\.tau=1\.5"),
        ({"select.top_fraction": []}, r"tune\.space"),
        (
            {"select.top_fraction": {"low": 0.4, "high": 0.4}},
            r"select\.top_fraction: low 0\.4 is not below high 0\.4: the range is empty",
        ),
        ({"select.top_fraction": {"low": 0, "high": 0.4, "log": True}}, "log needs a low above 0"),
        ({"select.top_fraction": [0.1, 0.1]}, "each value once"),
        ({"train.steps": [1, 2]}, r"train\.steps cannot be searched"),
        ({"data.train": [1, 2]}, r"data\.train cannot be searched"),
        ({"score.n_candidates": {"low": 10, "high": 20, "whole": True}}, "each value is scored anew"),
        ({"select.top_count": {"low": 1.5, "high": 4, "whole": True}}, "whole needs whole ends"),
        (
            {"select.top_count": {"low": 100, "high": 1000}},
            r"a whole number.* \(found 443\.769\); .*needs `whole: true`",
        ),
        ({"finetune.batch_size": {"low": 8, "high": 64, "log": True}}, "a whole number .*needs `whole: true`"),
        ({"finetune.steps": {"low": 1000, "high": 2000}}, "a whole number .*needs `whole: true`"),
        ({"select": {"top_fraction": [0.1]}}, r"select is no list .* dotted name stands in one piece"),
        ({"select.tau": {"low": 0.1, "hi": 0.3}}, r"select\.tau has an unknown hi; possible: low, high"),
        ({"select.tau": {"low": 0.1}}, r"select\.tau: high: Field required"),
        ({"select.tau": 0.3}, r"select\.tau must be a list of values, or a range .*\(found 0\.3\)"),
        ({"select.tau": []}, r"select\.tau: the list is empty"),
        ({"select.tau": [date(2024, 1, 1)]}, r"select\.tau: a value is neither text, number"),
        ({" seed": [1, 2]}, "seed cannot be searched"),
        ({"sample.seed": [1, 2]}, r"sample\.seed cannot be searched"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_before_work_starts(tmp_path, asked, message):
    with pytest.raises(ConfigError, match=message):
        space(tmp_path, asked)
