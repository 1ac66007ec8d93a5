"""Kept trials: what is written is read again, and which are the best."""

from __future__ import annotations

import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import StorageError
from ldsaug_ray.search.trials import Trial, as_overrides, front, key_of, read_trials

ONE, TWO = [{"frechet": 1.0}], [{"frechet": 1.0}, {"coverage": 1.0}]


def trial(number: int, state: str = "finished", **measures: float) -> Trial:
    return Trial({"select.tau": number / 10, "score.sigma": {"rule": "leave_one_out"}}, number, "id", state, measures)


def test_what_is_written_is_read(tmp_path):
    root = Location.of(tmp_path)
    curve = ((10, {"frechet": 3.0, "recall": None}), (30, {"frechet": 2.0}))
    first = Trial({"select.tau": 0.3}, 2, "id", "stopped", {"frechet": 2.0}, curve, 30, "", 1.5)
    second = trial(1, "running")
    for t in (first, second):
        t.write(root)
    assert read_trials(root) == [second, first]
    assert read_trials(Location.of(tmp_path / "elsewhere")) == []
    assert key_of({"b": 1, "a": 2}) == key_of({"a": 2, "b": 1}) != key_of({"a": 1, "b": 2})


@pytest.mark.parametrize("text", ["[]", "{}", '{"point": {}}', "not json"])
def test_a_file_that_is_no_trial(tmp_path, text):
    trial(1).write(Location.of(tmp_path))
    (file,) = (tmp_path / "search/trials").iterdir()
    file.write_text(text)
    with pytest.raises(StorageError, match=file.name):
        read_trials(Location.of(tmp_path))


def test_the_best_trial_and_the_front():
    trials = [
        trial(1, frechet=5.0, coverage=0.9),
        trial(2, frechet=3.0, coverage=0.5),
        trial(3, frechet=3.0, coverage=0.5),  # as good as the second, later
        trial(4, frechet=4.0, coverage=0.4),  # beaten by the second in both
        trial(5, "stopped", frechet=1.0, coverage=1.0),
        trial(6, "failed"),
    ]
    assert [t.number for t in front(trials, ONE)] == [2]
    assert [t.number for t in front(trials, TWO)] == [2, 1]
    assert front([trials[5]], ONE) == []
    assert trials[1].values(TWO) == [3.0, -0.5]
    assert trials[5].values(ONE) is None


def test_overrides_that_the_command_line_reads():
    words = as_overrides({"select.tau": 0.3, "score.sigma": {"rule": "fixed", "value": 2}, "score.plan": "blocks"})
    assert words == ["select.tau=0.3", 'score.sigma={"rule": "fixed", "value": 2}', "score.plan=blocks"]
