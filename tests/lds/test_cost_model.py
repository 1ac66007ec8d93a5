from __future__ import annotations

import pytest

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds import Approximation, choose_backend

PAPER = {"n": 20_000, "d": 512, "n_candidates": 50_000}


def test_only_what_is_allowed_is_chosen() -> None:
    assert choose_backend(**PAPER).seconds.keys() == {"exact"}
    every = choose_backend(**PAPER, allow_estimates=True, decisions_only=True)
    assert every.seconds.keys() == {"exact", "faiss", "race"}
    assert every.seconds[every.backend] == min(every.seconds.values())
    assert every.backend == "exact"  # the paper's size
    assert "exact" in every.sentence
    assert "20,000 latents" in every.sentence


def test_many_candidates_for_each_parent_are_for_the_others() -> None:
    size = {"n": 500_000, "d": 64, "n_candidates": 100_000_000}
    assert choose_backend(**size, decisions_only=True, tenths=False).backend == "race"
    assert choose_backend(**size, allow_estimates=True).backend == "faiss"


def test_what_is_at_hand_need_not_be_paid() -> None:
    size = {"n": 1_000_000, "d": 512, "n_candidates": 50_000}
    search, none = (
        choose_backend(**size, decisions_only=True, lists_at_hand=known).seconds["race"] for known in (False, True)
    )
    assert none < search
    built, there = (
        choose_backend(
            **size, allow_estimates=True, index_at_hand=known, approximation=Approximation(index="ivf")
        ).seconds["faiss"]
        for known in (False, True)
    )
    assert there < built


@pytest.mark.parametrize("change", [{"n": 0}, {"n_candidates": 0}, {"products": "int8"}])
def test_wrong_arguments(change: dict) -> None:
    with pytest.raises(ConfigError):
        choose_backend(**{**PAPER, **change})
