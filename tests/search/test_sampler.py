"""Samplers: each point once, what is over not again, what was begun first, and TPE finds what is good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ldsaug_ray.config import Tune
from ldsaug_ray.search.sampler import Sampler, open_sampler
from ldsaug_ray.search.space import Dimension, Point, Space
from ldsaug_ray.search.trials import Trial, key_of

SMALL = Space((Dimension("a", (0.1, 0.2, 0.4)), Dimension("b", ("x", "y"))))
WIDE = Space((Dimension("a", (0.1, 0.2, 0.4, 0.8)), Dimension("b", None, 1e-3, 1.0, log=True)))


def all_points(sampler: Sampler, values=lambda point: [0.0]) -> list[Point]:
    found = []
    while (point := sampler.ask()) is not None:
        found.append(point)
        told = values(point)
        measures = {} if told is None else dict(zip(("frechet", "nearer"), told, strict=False))
        state = "failed" if told is None else "stopped" if point.get("b") == "y" else "finished"
        sampler.tell(Trial(point, len(found), "same", state, measures, step=5))
    return found


def trial(point: Point, state: str = "finished", value: float = 1.0) -> Trial:
    return Trial(point, 1, "same", state, {"frechet": value})


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_every_point_of_a_small_space_once(search):
    found = all_points(open_sampler(Tune(search=search, trials=40), SMALL, []))
    assert sorted(key_of(p) for p in found) == sorted(key_of(p) for p in SMALL.grid())


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_a_search_goes_on_where_it_was(search):
    asked = Tune(search=search, trials=6)
    points = all_points(open_sampler(asked, SMALL, []))
    known = [trial(p) for p in points[:2]] + [trial(points[4], "running"), trial(points[3], "crashed")]
    left = all_points(open_sampler(asked, SMALL, known))
    assert {key_of(p) for p in left} == {key_of(p) for p in points[2:]}
    assert {key_of(p) for p in left[:2]} == {key_of(points[3]), key_of(points[4])}


def test_failed_trials_are_not_tried_again_and_count():
    points = SMALL.grid()
    known = [
        trial(points[0], "failed"),
        replace(trial(points[1], "stopped"), step=5),
        trial({"a": 7, "b": "x"}),
    ]  # one of another space
    for search in ("grid", "tpe"):
        left = all_points(open_sampler(Tune(search=search, trials=4), SMALL, known))
        assert len(left) == (4 if search == "grid" else 2)
        assert not {key_of(p) for p in left} & {key_of(p) for p in points[:2]}


def test_random_points_do_not_depend_on_what_was_done():
    asked = Tune(search="random", trials=8, seed=3)
    points = all_points(open_sampler(asked, WIDE, []))
    assert points == all_points(open_sampler(asked, WIDE, []))
    assert all_points(open_sampler(asked, WIDE, [trial(p) for p in points[:3]])) == points[3:]


def test_random_trials_are_as_many_as_are_asked_for():
    """Listed values are met again: twelve draws of these sixteen points gave nine or ten different ones."""
    listed = Space(tuple(Dimension(name, (1, 2, 3, 4)) for name in "ab"))
    for seed in range(5):
        asked = Tune(search="random", trials=12, seed=seed)
        points = all_points(open_sampler(asked, listed, []))
        assert len({key_of(p) for p in points}) == len(points) == 12
        more = asked.model_copy(update={"trials": 15})
        assert all_points(open_sampler(more, listed, []))[:12] == points
        assert len(all_points(open_sampler(more, listed, [trial(p) for p in points]))) == 3


def loss(point: Point) -> float:
    return abs(np.log(point["a"] / 0.4)) + abs(np.log(point["b"] / 0.03))


def test_tpe_finds_what_is_good_and_is_repeatable():
    asked = Tune(search="tpe", trials=40, seed=1)
    points = all_points(open_sampler(asked, WIDE, []), lambda p: [loss(p)])
    assert len({key_of(p) for p in points}) == 40
    assert points == all_points(open_sampler(asked, WIDE, []), lambda p: [loss(p)])
    early, late = (np.mean([loss(p) for p in part]) for part in (points[:10], points[-15:]))
    assert late < 0.6 * early
    assert {type(p["a"]) for p in points} == {float}


def test_tpe_learns_from_an_earlier_attempt():
    asked = Tune(search="tpe", trials=60, seed=1)
    points = all_points(open_sampler(Tune(search="tpe", trials=40, seed=1), WIDE, []), lambda p: [loss(p)])
    known = [trial(p, value=loss(p)) for p in points]
    more = all_points(open_sampler(asked, WIDE, known), lambda p: [loss(p)])
    assert len(more) == 20
    assert not {key_of(p) for p in more} & {key_of(p) for p in points}
    assert np.mean([loss(p) for p in more]) < 0.7 * np.mean([loss(p) for p in points[:10]])


def test_two_objectives_and_failures():
    asked = Tune(search="tpe", trials=25, objectives=({"frechet": 1}, {"nearer": 1}))
    points = all_points(open_sampler(asked, WIDE, []), lambda p: None if p["a"] == 0.1 else [p["b"], -p["a"]])
    assert len(points) == 25
    known = [Trial(p, 1, "same", "finished", {"frechet": p["b"], "nearer": -p["a"]}) for p in points]
    assert len(all_points(open_sampler(asked.model_copy(update={"trials": 28}), WIDE, known), lambda p: [1, 2])) == 3


def test_tpe_keeps_away_from_where_trials_fail():
    """Were they left out of its model, at least thirteen of the last twenty would fail here."""
    found = all_points(open_sampler(Tune(trials=40), WIDE, []), lambda p: None if p["b"] > 0.03 else [-p["a"]])
    assert sum(p["b"] > 0.03 for p in found[20:]) < 8
