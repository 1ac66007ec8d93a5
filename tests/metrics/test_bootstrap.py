from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import mean_and_error, paired_difference


def test_mean_and_error() -> None:
    x = np.random.default_rng(0).standard_normal(12)
    got = mean_and_error(x)
    assert (got.mean, got.n) == (pytest.approx(x.mean()), 12)
    assert got.standard_error == pytest.approx(stats.sem(x))
    assert mean_and_error([3.0]).standard_error is None


def test_intervals_against_scipy() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal(15)
    b = a + 0.3 + 0.5 * rng.standard_normal(15)
    got = paired_difference(a, b, seed=2)
    want = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (got.t_low, got.t_high) == pytest.approx((want.low, want.high))
    again = stats.bootstrap(
        (a - b,), np.mean, method="percentile", n_resamples=40_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert (got.low, got.high) == pytest.approx((again.low, again.high), abs=0.01)
    assert got.mean == pytest.approx((a - b).mean())
    assert got.notes == ()
    assert got == paired_difference(a, b, seed=2)
    assert got.low != paired_difference(a, b, seed=3).low


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(2)
    shared = 10 * rng.standard_normal(10)
    got = paired_difference(shared + 1 + 0.1 * rng.standard_normal(10), shared)
    assert 0.8 < got.low < 1 < got.high < 1.2


def test_few_seeds() -> None:
    got = paired_difference([1.0, 2.0, 4.0], [0.0, 0.0, 0.0], resamples=50_000)
    # 27 equally likely resamples, of which one holds only the least: the quantile is exact
    every = sorted((x + y + z) / 3 for x in (1, 2, 4) for y in (1, 2, 4) for z in (1, 2, 4))
    assert (got.low, got.high) == (every[0], every[-1])
    assert got.t_low is not None
    assert got.t_low < got.low
    assert "3 seeds" in got.notes[0]
    one = paired_difference([2.0], [0.5])
    assert (one.mean, one.low, one.t_low, one.standard_error) == (1.5, None, None, None)
    assert "One seed" in one.notes[0]


def test_bad_input() -> None:
    with pytest.raises(InputError, match="3 and 2 values; a paired difference needs the same seeds"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="FID, second side: value 1 of 2 is nan"):
        paired_difference([1, 2], [1, np.nan], name="FID")
    with pytest.raises(InputError, match="at least one number"):
        mean_and_error([])
    with pytest.raises(ValueError, match="level"):
        paired_difference([1, 2], [1, 2], level=95)
