"""assign_splits: a function of the seed and the set of keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
