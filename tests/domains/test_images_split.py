"""assign_splits: a function of the seed and the set of keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ldsaug_ray.config.data import Data
from ldsaug_ray.domains.images import assign_splits
from ldsaug_ray.errors import InputError

KEYS = [f"{i:06d}.jpg" for i in range(500)]


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(), st.integers(2, 300), st.integers(0, 200))
def test_order_does_not_matter(random, seed, train, test):
    shuffled = KEYS.copy()
    random.shuffle(shuffled)
    a = dict(zip(KEYS, assign_splits(KEYS, seed=seed, train=train, test=test), strict=True))
    b = dict(zip(shuffled, assign_splits(shuffled, seed=seed, train=train, test=test), strict=True))
    assert a == b
    counts = [list(a.values()).count(s) for s in ("train", "test", "unused")]
    assert counts == [train, test, 500 - train - test]


def test_seed_matters_and_looks_random():
    a, b = (assign_splits(KEYS, seed=s, train=0.5, test=0.5) == "train" for s in (0, 1))
    assert 200 < (a == b).sum() < 300
    assert 100 < a[:250].sum() < 150


def test_more_test_leaves_train_alone():
    a = assign_splits(KEYS, seed=0, train=100, test=10)
    b = assign_splits(KEYS, seed=0, train=100, test=400)
    np.testing.assert_array_equal(a == "train", b == "train")


@pytest.mark.parametrize("n", range(3, 60))
def test_fractions_that_sum_to_one_use_every_key(n):
    for train in (0.5, 0.8, 0.7):
        splits = assign_splits(KEYS[:n], seed=0, train=train, test=1 - train)
        assert (splits == "unused").sum() == 0
        assert abs((splits == "train").sum() - train * n) <= 0.5


def test_errors():
    with pytest.raises(InputError, match=r"data\.train = 400 and data\.test = 200 ask for 400 \+ 200 = 600 .* 500"):
        assign_splits(KEYS, seed=0, train=400, test=200)
    with pytest.raises(InputError, match=r"data\.train = 500 and data\.test = 0\.2"):
        assign_splits(KEYS, seed=0, train=500, test=0.2)
    with pytest.raises(InputError, match="pairs need two"):
        assign_splits(KEYS[:2], seed=0, train=0.5, test=0.5)
    with pytest.raises(ValueError, match="unique"):
        assign_splits(["a", "a", "b"], seed=0, train=2, test=0)


TAKES = [f"{digit}_{speaker}_{take}.wav" for digit in range(10) for speaker in "ab" for take in range(25)]


def test_groups_are_on_one_side():
    """Which one follows from the groups' names: as if each were one key."""
    sides = assign_splits(TAKES, seed=3, train=400, test=0.16, split_by=r"_(\d+)\.wav$")
    of = {take: {s for key, s in zip(TAKES, sides, strict=True) if key.endswith(f"_{take}.wav")} for take in range(25)}
    whole = assign_splits([str(take) for take in range(25)], seed=3, train=20, test=4)
    assert of == {take: {side} for take, side in enumerate(whole.tolist())}
    assert [(sides == side).sum() for side in ("train", "test", "unused")] == [400, 80, 20]
    np.testing.assert_array_equal(assign_splits(TAKES, seed=3, train=400, test=80, split_by="[^_]+$"), sides_of_files())


def sides_of_files():
    """By the whole match, `7.wav`, by hand."""
    names = [key.rpartition("_")[2] for key in TAKES]
    whole = dict(
        zip(dict.fromkeys(names), assign_splits([*dict.fromkeys(names)], seed=3, train=20, test=4), strict=True)
    )
    return [whole[name] for name in names]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(2, 200), st.integers(0, 100))
def test_sides_miss_what_was_asked_by_half_a_group_at_most(sizes, train, test):
    keys = [f"{group}-{row}" for group, size in enumerate(sizes) for row in range(size)]
    if train + test > len(keys):
        return
    try:
        sides = assign_splits(keys, seed=0, train=train, test=test, split_by=r"^\d+")
    except InputError:  # of few groups one side may get none
        return
    n_train, n_test = ((sides == side).sum() for side in ("train", "test"))
    assert abs(n_train - train) <= max(sizes) / 2
    assert abs(n_train + n_test - train - test) <= max(sizes) / 2


def test_errors_of_groups():
    with pytest.raises(
        InputError, match=r"data\.split_by = 'x_' is not found in 500 of 500 keys, such as '0_a_0\.wav'"
    ):
        assign_splits(TAKES, seed=0, train=0.8, test=0.2, split_by="x_")
    with pytest.raises(InputError, match=r"in 2 groups by data\.split_by, the largest of 250, gives none"):
        assign_splits(TAKES, seed=0, train=0.8, test=0.1, split_by="_([ab])_")
    with pytest.raises(ValidationError, match=r"'\(' is not a regular expression: missing \)"):
        Data(source="x", split_by="(")
