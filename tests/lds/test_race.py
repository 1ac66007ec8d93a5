from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lds_oracles import score

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import plan_pairs
from ldsaug_ray.lds._far import FarField
from ldsaug_ray.lds._frame import Frame
from ldsaug_ray.lds._kernel import Sums
from ldsaug_ray.lds.neighbours import Neighbours, nearest
from ldsaug_ray.lds.race import Race, Racer, bracket_of, race_pairs

ALPHAS = [m / 10 for m in range(1, 10)]


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def norm(train: np.ndarray) -> float:
    return float(np.linalg.norm(train - train.mean(0), axis=1).mean()) or 1.0


def clustered(n: int, d: int, seed: int) -> np.ndarray:
    """Tight groups, heavy tails and some exact duplicates: few latents carry the sums."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, n // 20), d))
    z = centres[rng.integers(len(centres), size=n)] + 0.3 * rng.standard_normal((n, d)) * rng.exponential(1, (n, 1))
    z[n // 2 : n // 2 + n // 8] = z[: n // 8]
    return z.astype(np.float32)


def top(scores: np.ndarray, count: int) -> np.ndarray:
    flat = scores.ravel()
    out = np.zeros(flat.size, bool)
    out[np.lexsort((np.arange(flat.size), -flat))[:count]] = True
    return out.reshape(scores.shape)


def counts(race: Race, exclude: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    s = race.scores
    if exclude:
        found = s.log_lds_excluding_parents, s.log_lds_excluding_parents_low, s.log_lds_excluding_parents_high
    else:
        found = s.log_lds, s.log_lds_low, s.log_lds_high
    return tuple(x[..., 0] for x in found)


def assert_same_selection(z: np.ndarray, pairs: np.ndarray, alphas: list[float], sigma: float, **options) -> None:
    """Both rules, against float64 brute force."""
    exclude, kind = options.get("exclude_parents", False), options.get("interpolation", "linear")
    want = score(z, pairs, alphas, [sigma], kind)["log_lds_excluding_parents" if exclude else "log_lds"][..., 0]
    ranked = np.sort(want.ravel())
    for share in (0.05, 0.2, 0.7):
        count = max(1, int(share * want.size))
        race = race_pairs(z, pairs, alphas, sigma, top_count=count, **options)
        estimate, low, high = counts(race, exclude)
        assert (low <= want + 1e-7).all()
        assert (want <= high + 1e-7).all()
        assert (low <= estimate).all()
        assert (estimate <= high).all()
        # mathematically equal candidates may differ in the last digit of either side: judge by the scores selected
        np.testing.assert_allclose(np.sort(want[race.selected]), ranked[-count:], atol=1e-9)
        np.testing.assert_array_equal(race.selected, top(estimate, count))
        inside, outside = ranked[-count], ranked[max(0, ranked.size - count - 1)]
        if outside > -600 and inside - outside > 1e-8:  # a tau between the two
            tau = float(np.exp((inside + outside) / 2))
            race = race_pairs(z, pairs, alphas, sigma, tau=tau, **options)
            np.testing.assert_array_equal(race.selected, want > np.log(tau))


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("scale", [0.05, 0.2, 0.4, 2.0])
@pytest.mark.parametrize("make", [gaussian, clustered])
def test_selects_what_exact_scores_select(make, scale: float, exclude: bool) -> None:
    for seed in range(2):
        z = make(1500, 24, seed)
        pairs = plan_pairs(len(z), 12, seed)
        assert_same_selection(
            z, pairs, ALPHAS, scale * norm(z), exclude_parents=exclude, seed=seed, neighbours=8 << (2 * seed)
        )


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    n=st.integers(2, 700),
    d=st.integers(1, 12),
    k=st.sampled_from([1, 3, 16, 1000]),
    scale=st.sampled_from([0.02, 0.2, 0.5, 3.0]),
    alphas=st.sampled_from([[0.5], [0.1, 0.9], [0.25, 0.4], [-0.5, 1.3]]),
    kind=st.sampled_from(["linear", "slerp"]),
    exclude=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(n, d, k, scale, alphas, kind, exclude, seed) -> None:
    # equal latents lie on one line through the origin and have no arc
    z = (clustered if kind == "linear" else gaussian)(n, d + (kind == "slerp"), seed) + np.float32(0.5)
    pairs = np.concatenate([plan_pairs(n, 10, seed)] * 2)  # every candidate twice: ties
    options = {"interpolation": kind, "exclude_parents": exclude, "seed": seed, "neighbours": k}
    assert_same_selection(z, pairs, alphas, scale * norm(z), **options)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("exclude", [False, True])
def test_few_latents_and_equal_ones(n: int, exclude: bool) -> None:
    assert_same_selection(gaussian(n, 4), plan_pairs(n, 6, 0), ALPHAS, 1.0, exclude_parents=exclude)
    equal = race_pairs(np.ones((n, 3)), plan_pairs(n, 6, 0), [0.5], 1.0, top_count=2, exclude_parents=exclude)
    np.testing.assert_array_equal(np.flatnonzero(equal.selected), [0, 1])  # ties by candidate number


def test_no_candidates_and_all_candidates() -> None:
    z = gaussian(40, 4)
    assert race_pairs(z, np.empty((0, 2), int), ALPHAS, 1.0, top_count=3).selected.shape == (0, 9)
    assert race_pairs(z, plan_pairs(40, 3, 0), ALPHAS, 1.0, top_count=99).selected.all()


def test_reads_less_than_everything() -> None:
    z = gaussian(30_000, 128)
    race = race_pairs(z, plan_pairs(30_000, 40, 0), ALPHAS, 0.4 * norm(z), top_count=72, exclude_parents=True)
    assert race.evaluations < 0.6 * race.exact_evaluations


def test_neither_threads_nor_tiles_change_the_answer() -> None:
    z = gaussian(1200, 16)
    pairs, options = plan_pairs(1200, 15, 0), {"top_count": 30, "exclude_parents": True}
    threads = torch.get_num_threads()
    found = []
    try:
        for n, tiles in ((1, {}), (2, {"tile_rows": 5, "tile_latents": 100}), (3, {"products": "bfloat16"})):
            torch.set_num_threads(n)
            found.append(race_pairs(z, pairs, ALPHAS, 0.3 * norm(z), **options, **tiles))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        np.testing.assert_array_equal(other.selected, found[0].selected)
    np.testing.assert_allclose(counts(found[1], True), counts(found[0], True), atol=1e-5)


def test_two_phases_in_parts_select_the_same() -> None:
    """Parts of the pairs race on their own against a bracket made of all their bounds."""
    z = gaussian(1500, 16)
    pairs, sigma = plan_pairs(1500, 24, 0), 0.3 * norm(z)
    whole = race_pairs(z, pairs, ALPHAS, sigma, top_count=40, exclude_parents=True)
    parts = [
        Racer(z, part, ALPHAS, sigma, exclude_parents=True, n_candidates=24 * 9) for part in np.array_split(pairs, 3)
    ]
    for part in parts:
        part.read(0.3)
    bracket = bracket_of(*(np.concatenate(side) for side in zip(*(p.bounds() for p in parts), strict=True)), 40)
    for part in parts:
        part.run(*bracket)
    estimates = np.concatenate([part.estimates() for part in parts]).reshape(-1, 9)
    np.testing.assert_array_equal(top(estimates, 40), whole.selected)


def test_bracket() -> None:
    lows, highs = np.array([0.0, 2.0, 4.0, 6.0]), np.array([3.0, 5.0, 7.0, 9.0])
    assert bracket_of(lows, highs, 1) == (6.0, 7.0)
    assert bracket_of(lows, highs, 3) == (2.0, 3.0)
    assert bracket_of(lows, highs, 4) == (-np.inf, -np.inf)


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_neighbours_and_what_lies_beyond(products: str) -> None:
    z = gaussian(900, 20) + np.float32(3)
    rows = np.array([5, 700, 3])
    got = nearest(Frame.over(z), z, z[rows], rows, 12, products=products, tile_latents=128)
    for row, ids, beyond in zip(rows, got.ids, got.beyond, strict=True):
        square = ((z.astype(float) - z[row].astype(float)) ** 2).sum(1)
        others = np.setdiff1d(np.arange(900), [*ids, row])
        assert row not in ids
        assert beyond <= square[others].min()
        if products == "float32":
            assert set(ids) == set(np.argsort(square)[1:13])
            assert beyond > 0.99 * np.sort(square)[12]
    everything = nearest(Frame.over(z), z[:9], z[:2], np.array([0, -1]), 20)
    assert sorted(everything.ids[0]) == [-1, *range(1, 9)]
    assert np.isinf(everything.beyond[0])


def outliers(n: int, d: int, size: float) -> np.ndarray:
    z = gaussian(n, d)
    z[3] *= size
    return z


def small_half(n: int, d: int) -> np.ndarray:
    z = gaussian(n, d)
    z[::2] *= 1e-4
    return z


@pytest.mark.parametrize("size", [1e4, 1e5, 1e6, 1e7])
def test_an_outlier_does_not_loosen_what_lies_beyond(size: float) -> None:
    z = outliers(1500, 16, size)
    rows = np.arange(10, 40)
    got = nearest(Frame.over(z), z, z[rows], rows, 8)
    for row, ids, beyond in zip(rows, got.ids, got.beyond, strict=True):
        square = ((z.astype(float) - z[row].astype(float)) ** 2).sum(1)
        assert beyond <= square[np.setdiff1d(np.arange(len(z)), [*ids, row])].min()


@pytest.mark.parametrize("z", [outliers(1500, 24, 1e5), outliers(1500, 24, 1e6), small_half(1500, 24)])
@pytest.mark.parametrize("exclude", [False, True])
def test_outliers_change_no_decision(z: np.ndarray, exclude: bool) -> None:
    pairs = plan_pairs(len(z), 30, 0)
    assert_same_selection(z, pairs, [0.1, 0.5, 0.9], 2.0, exclude_parents=exclude)


def test_bounds_hold_as_often_as_they_promise() -> None:
    """4,000 far fields of heavy-tailed weights, read in blocks, looked at after each."""
    rng = np.random.default_rng(0)
    c, m, delta = 4000, 600, 0.1
    weights = np.minimum(rng.pareto(1.1, m) / 50, 1.0)
    truth = weights.sum()
    far = FarField(np.zeros((c, 1)), np.full(c, m), delta, np.array([100.0, 300.0]))
    orders = np.argsort(rng.random((c, m)), axis=1)
    none = Sums.empty(c, 1)
    estimates = []
    for begin, end in ((0, 30), (30, 90), (90, 200), (200, 400)):
        x = weights[orders[:, begin:end]]
        block = Sums(np.zeros((c, 1)), x.sum(1)[:, None], (x**2).sum(1)[:, None])
        far.add(np.arange(c), block, none, np.full(c, end - begin))
        estimates.append(np.exp(-far.sums()[0].base).mean())
    assert (far.low > truth).mean() <= delta
    assert (far.high < truth).mean() <= delta
    assert (far.high - far.low).mean() < 0.6 * truth  # they say something
    np.testing.assert_allclose(estimates, truth, rtol=0.01)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tau": 0.1, "top_count": 3}, ConfigError, "one of tau and top_count"),
        ({"top_count": None}, ConfigError, "one of tau and top_count"),
        ({"top_count": 0}, ConfigError, "top_count must be at least 1"),
        ({"top_count": None, "tau": -1.0}, ConfigError, "tau must be a positive number"),
        ({"delta": 0.0}, ConfigError, "delta"),
        ({"delta": 1.5}, ConfigError, "delta"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"neighbours": 0}, ConfigError, "neighbours must be at least 1"),
        ({"neighbours": Neighbours(np.zeros((2, 3), int), np.zeros(2), False)}, ConfigError, "bounded: False"),
        ({"products": "int8"}, ConfigError, "int8"),
        ({"sigma": 0.0}, ConfigError, "positive"),
        ({"pairs": [[0, 0]]}, InputError, "itself"),
        ({"train": np.full((9, 2), np.nan)}, InputError, "NaN"),
    ],
)
def test_wrong_arguments(change: dict, error: type[Exception], text: str) -> None:
    call = {"train": gaussian(9, 2), "pairs": [[0, 1]], "alphas": [0.5], "sigma": 1.0, "top_count": 1} | change
    with pytest.raises(error, match=text):
        race_pairs(call.pop("train"), call.pop("pairs"), call.pop("alphas"), call.pop("sigma"), **call)
