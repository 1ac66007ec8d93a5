"""The space of a search, and what is wrong with one before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.search.space import Source, Space, check_values, space_of

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
        ({"select.top_fraction": {"low": 0.4, "high": 0.4}}, "range is empty"),
        ({"select.top_fraction": {"low": 0, "high": 0.4, "log": True}}, "log needs a low above 0"),
        ({"select.top_fraction": [0.1, 0.1]}, "each value once"),
        ({"train.steps": [1, 2]}, r"train\.steps cannot be searched"),
        ({"data.train": [1, 2]}, r"data\.train cannot be searched"),
        ({"score.n_candidates": {"low": 10, "high": 20, "whole": True}}, "each value is scored anew"),
        ({"select.top_count": {"low": 1.5, "high": 4, "whole": True}}, "whole needs whole ends"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_before_work_starts(tmp_path, asked, message):
    with pytest.raises(ConfigError, match=message):
        space(tmp_path, asked)
