"""Trials as tables and in words: their order, what is left out, and every digit in the CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import yaml

from ldsaug_ray.commands.tune import _print_results
from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.search.page import findings, search_page
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.tables import ranked, rows_of, text_of, trials_csv
from ldsaug_ray.search.trials import Trial

SIGMA, TAU = "score.sigma.scale", "select.tau"
TAUS = {"low": 0.1, "high": 0.9}


def plan(folder: Path, *objectives: dict[str, float]) -> Search:
    tree = {
        "run_dir": str(folder / "run"),
        "data": {"source": "sklearn:digits"},
        "tune": {"space": {SIGMA: [0.1, 0.2], TAU: TAUS}, "objectives": objectives},
    }
    file = folder / "tune.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return plan_search(str(file))


def trial(number: int, state: str = "finished", **measures: float) -> Trial:
    why = "nothing is\nkept" if state == "failed" else ""
    return Trial({SIGMA: 0.2, TAU: number / 10}, number, "same", state, measures, step=3 * number, why=why, seconds=2.5)


@pytest.fixture
def trials() -> list[Trial]:
    return [
        trial(1, a_nearer=0.5, a_likelihood=1.0, kept=12345.0),
        trial(2, "stopped", a_nearer=0.1, a_likelihood=0.0),
        trial(3, "failed"),
        trial(4, a_nearer=0.123456789, a_likelihood=-2.0, kept=7.0),
        trial(5, a_nearer=0.7, a_likelihood=-3.0),
    ]


def test_the_order_of_trials(tmp_path, trials):
    assert [t.number for t in ranked(plan(tmp_path, {"a_nearer": 1}), trials)] == [4, 1, 5, 2]
    two = plan(tmp_path, {"a_nearer": 1}, {"a_likelihood": 1})  # 5 is beaten in both, so that the front comes first
    assert [t.number for t in ranked(two, trials)] == [4, 1, 5, 2]
    trials[4] = trial(5, a_nearer=0.9, a_likelihood=4.0)
    trials[0] = trial(1, a_nearer=0.5, a_likelihood=-2.5)
    assert [t.number for t in ranked(two, trials)] == [4, 5, 1, 2]


def test_a_table_for_people(tmp_path, trials):
    head, rows = rows_of(plan(tmp_path, {"a_nearer": 1}), trials)
    assert head[:4] == ["trial", "sigma.scale", "tau", "a_nearer"]
    assert rows[0][:5] == ["4", "0.2", "0.4", "0.12346", "7"]
    assert rows[1][4] == "12,345"
    assert rows[3][0] == "2 (stopped at 6)"
    assert rows[3][4] == ""  # it was not measured
    assert all(len(row) == len(head) for row in rows)
    assert len(rows_of(plan(tmp_path, {"a_nearer": 1}), trials, most=2)[1]) == 2
    head, rows = rows_of(plan(tmp_path, {"a_nearer": 1, "a_likelihood": 2}), trials)
    assert head[3:6] == ["a_nearer + 2 -a_likelihood", "A: nearer", "A: likelihood gain"]
    assert rows[0][3:6] == ["-1.5", "0.5", "1"]
    assert (text_of({"rule": "fixed", "value": 2.0, "scale": None}), text_of(None)) == ("fixed 2", "null")


def test_a_table_with_every_trial_and_digit(tmp_path, trials):
    rows = list(csv.DictReader(io.StringIO(trials_csv(plan(tmp_path, {"a_nearer": 1}), trials))))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[3]["a_nearer"] == "0.123456789"
    assert (rows[2]["state"], rows[2]["a_nearer"], rows[2]["why"]) == ("failed", "", "nothing is kept")
    assert (rows[0]["kept"], rows[4]["kept"], rows[0][TAU]) == ("12345.0", "", "0.1")
    assert list(rows[0]).count("a_nearer") == 1


def test_a_trial_without_a_value_of_what_is_asked_for(tmp_path, trials):
    trials.append(trial(8, a_nearer=None, kept=5.0))
    search = plan(tmp_path, {"a_nearer": 1})
    why = "a_nearer has no value for these images"
    assert [search.why(t) for t in trials] == ["", "", "nothing is\nkept", "", "", why]
    assert 8 not in [t.number for t in ranked(search, trials)]
    row = list(csv.DictReader(io.StringIO(trials_csv(search, trials))))[5]
    assert (row["state"], row["a_nearer"], row["kept"], row["why"]) == ("finished", "", "5.0", why)
    page = search_page(search, trials, "")
    assert f"{SIGMA}=0.2, {TAU}=0.8: {why}" in page
    assert "each cell; ? finished without a result; × cannot work" in page
    assert search.why(trial(7, "running")) == ""


def test_what_is_told_of_a_search(tmp_path, trials):
    search = plan(tmp_path, {"a_nearer": 1})
    (told,) = findings(search, trials)
    assert told.startswith("Trial 4 is the best of 3 finished ones: a_nearer = 0.12346; their median is 0.5")
    assert findings(search, trials[1:3]) == ["No trial has come to a result yet."]
    (told,) = findings(plan(tmp_path, {"a_nearer": 1}, {"a_likelihood": 1}), trials)
    assert told == "No other trial beats these in both objectives: 4, 1."


def test_the_terminal_where_nothing_came_of_it(tmp_path, capsys):
    search = plan(tmp_path, {"a_nearer": 1})
    run = RunDir(Location.of(search.root))
    for trials, told in (
        ([], "no trial came to a result\n"),  # there was no time for one
        ([trial(1, "running"), trial(3, "failed")], "no trial came to a result: nothing is\nkept\n"),
        ([trial(1, a_nearer=0.5)], "the best of 1 trial "),
    ):
        _print_results(search, run, trials)
        output = capsys.readouterr().out
        assert told in output
        assert ("measured again: ldsaug tune" in output) == ("the best of" in output)


@pytest.mark.parametrize("objectives", [[{"a_nearer": 1}], [{"a_nearer": 1}, {"a_likelihood": 1}]])
def test_a_page_of_whatever_there_is(tmp_path, trials, objectives):
    search = plan(tmp_path, *objectives)
    page = search_page(search, trials, trials_csv(search, trials))
    assert page.count("data:image/svg+xml") > 1
    for text in ("Trial by trial" if len(objectives) == 1 else "The front", "nothing is", SIGMA, TAU):
        assert text in page
    assert "No trial has come to a result yet" in search_page(search, [], trials_csv(search, []))
