from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.lds import candidates, n_pairs_for, plan_block, plan_pairs, plan_pairs_range


def philox_words(seed: int, tag: int, step: int) -> list[int]:
    """Philox-4x64-10 in Python integers, from Salmon et al. 2011: the four words of one counter value."""
    x = [step, 0, 0, 0]
    key = [seed, tag]
    mask = 2**64 - 1
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(b >> 64) ^ x[1] ^ key[0], b & mask, (a >> 64) ^ x[3] ^ key[1], a & mask]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return x


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (7, 1), (20_000, 2**32 - 1), (2**31 + 11, 2**64 - 1)])
def test_documented_formula(n: int, seed: int) -> None:
    pairs = plan_pairs(n, 6, seed)
    for p in range(6):
        # numpy steps the counter before it draws, so the first words are those of counter 1
        words = philox_words(seed, int.from_bytes(b"pairs", "big"), 1 + p // 2)[2 * (p % 2) :][:2]
        i = (words[0] >> 11) * n // 2**53
        j = (words[1] >> 11) * (n - 1) // 2**53
        assert pairs[p].tolist() == [i, j + (j >= i)]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(n=st.integers(2, 10**9), seed=st.integers(0, 2**64 - 1), start=st.integers(0, 70), length=st.integers(0, 70))
def test_a_range_is_a_slice(n: int, seed: int, start: int, length: int) -> None:
    whole = plan_pairs(n, 150, seed)
    part = plan_pairs_range(n, start, start + length, seed)
    assert part.dtype == np.int64
    np.testing.assert_array_equal(part, whole[start : start + length])
    assert ((whole >= 0) & (whole < n)).all()
    assert (whole[:, 0] != whole[:, 1]).all()


def test_far_ranges_cost_nothing_and_continue() -> None:
    far = plan_pairs_range(100, 10**15, 10**15 + 5, 3)
    np.testing.assert_array_equal(far[3:], plan_pairs_range(100, 10**15 + 3, 10**15 + 5, 3))


def test_every_ordered_pair_is_equally_likely() -> None:
    pairs = plan_pairs(6, 60_000, 5)
    counts = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36).reshape(6, 6)
    assert counts.trace() == 0
    assert chisquare(counts[~np.eye(6, dtype=bool)]).pvalue > 1e-3
    following = np.bincount(pairs[:-1, 0] * 6 + pairs[1:, 0], minlength=36)  # neighbours are independent
    assert chisquare(following, following.sum() / 36 * np.ones(36)).pvalue > 1e-3


def test_seeds_differ() -> None:
    plans = [plan_pairs(1000, 50, seed) for seed in range(5)]
    assert len({plan.tobytes() for plan in plans}) == 5


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_latents(n: int) -> None:
    with pytest.raises(InputError, match=f"found {n}"):
        plan_pairs(n, 3, 0)


@pytest.mark.parametrize(("start", "stop", "seed"), [(-1, 3, 0), (4, 3, 0), (0, 1, -1), (0, 1, 2**64)])
def test_impossible_ranges_and_seeds(start: int, stop: int, seed: int) -> None:
    with pytest.raises(ConfigError):
        plan_pairs_range(5, start, stop, seed)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(total=st.integers(0, 200), n_alphas=st.integers(1, 11), cut=st.integers(0, 200))
def test_candidates_are_numbered_pair_by_pair(total: int, n_alphas: int, cut: int) -> None:
    alphas = [(m + 1) / 20 for m in range(n_alphas)]
    n_pairs = n_pairs_for(total, n_alphas)
    assert (n_pairs - 1) * n_alphas < total <= n_pairs * n_alphas
    pairs = plan_pairs(50, n_pairs, 9)
    whole = candidates(50, alphas, 0, total, 9)
    assert len(whole) == total
    assert [(c.i, c.j, c.alpha) for c in _rows(whole)] == [
        (*pairs[c // n_alphas], alphas[c % n_alphas]) for c in range(total)
    ]
    cut = min(cut, total)
    left, right = candidates(50, alphas, 0, cut, 9), candidates(50, alphas, cut, total, 9)
    for name in ("id", "i", "j", "alpha"):
        joined = np.concatenate([getattr(left, name), getattr(right, name)])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def _rows(c):
    return [type(c)(*row) for row in zip(c.id, c.i, c.j, c.alpha, strict=True)]


def test_wrong_counts() -> None:
    with pytest.raises(ConfigError):
        n_pairs_for(5, 0)
    with pytest.raises(ConfigError):
        candidates(5, [], 0, 3, 0)
    with pytest.raises(ConfigError, match=r"5\.\.3"):
        candidates(5, [0.5], 5, 3, 0)


def test_block_is_as_documented() -> None:
    n, u, v, seed, number = 37, 5, 4, 11, 3
    source = np.random.Philox(key=np.array([seed, int.from_bytes(b"blocks", "big")], np.uint64), counter=[0, 3, 0, 0])
    drawn: list[int] = []
    while len(drawn) < u + v:
        value = int((int(source.random_raw()) >> 11) * 2.0**-53 * n)
        drawn += [] if value in drawn else [value]
    rows, columns = plan_block(n, (u, v), number, seed)
    assert rows.tolist() == drawn[:u]
    assert columns.tolist() == drawn[u:]


def test_blocks_pair_every_row_with_every_column() -> None:
    alphas, shape = [0.2, 0.5, 0.8], (3, 4)
    size = 3 * 4 * len(alphas)
    plan = candidates(20, alphas, 0, 2 * size + 5, 7, shape)
    assert plan.id.tolist() == list(range(2 * size + 5))
    for number in range(2):
        rows, columns = plan_block(20, shape, number, 7)
        assert not set(rows) & set(columns)
        mine = slice(number * size, (number + 1) * size)
        want = [(i, j, a) for i in rows for j in columns for a in alphas]
        assert list(zip(plan.i[mine], plan.j[mine], plan.alpha[mine], strict=True)) == want
    for start, stop in ((0, 10), (size - 3, size + 8), (70, 71)):
        part = candidates(20, alphas, start, stop, 7, shape)
        for name in ("id", "i", "j", "alpha"):
            np.testing.assert_array_equal(getattr(part, name), getattr(plan, name)[start:stop])


def test_blocks_draw_every_latent_alike() -> None:
    drawn = np.concatenate([np.concatenate(plan_block(12, (3, 2), number, 1)) for number in range(3000)])
    assert chisquare(np.bincount(drawn, minlength=12)).pvalue > 1e-3


def test_blocks_may_use_all_latents_but_no_more() -> None:
    assert sorted(np.concatenate(plan_block(7, (4, 3), 0, 0))) == list(range(7))
    with pytest.raises(ImpossibleError, match=r"need 8 training latents; found 7; lower score.block"):
        plan_block(7, (4, 4), 0, 0)
    with pytest.raises(ConfigError, match="at least one row"):
        plan_block(7, (0, 4), 0, 0)
