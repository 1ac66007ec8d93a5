from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsaug_ray.config import Select
from ldsaug_ray.errors import ImpossibleError, InputError, NothingSelectedError
from ldsaug_ray.selection import best, select, threshold
from ldsaug_ray.selection.threshold import conformal_band, conformal_bound


def statistics(held_out: np.ndarray, level: Fraction) -> tuple[float, float]:
    """k-th smallest and k-th largest, k = floor(level (n + 1)) in exact arithmetic."""
    ordered, k = sorted(held_out), math.floor(level * (len(held_out) + 1))
    return ordered[k - 1], ordered[-k]


def oracle(scores: np.ndarray, rules: Select, n_alphas: int, held_out: np.ndarray) -> list[int]:
    """Sort everything by (-score, id), then apply each rule by itself."""
    n = len(scores)
    ranked = sorted(range(n), key=lambda c: (-scores[c], c))
    kept = set(ranked)
    if rules.tau == "auto":
        kept &= {c for c in ranked if scores[c] >= statistics(held_out, Fraction(str(rules.tau_level)))[0]}
    elif rules.tau is not None:
        kept &= {c for c in ranked if scores[c] > math.log(rules.tau)}
    if rules.typical is not None:
        low, high = statistics(held_out, (1 - Fraction(str(rules.typical))) / 2)
        kept &= {c for c in ranked if low <= scores[c] <= high}
    strata = n_alphas if rules.stratify else 1
    by_alpha = [[c for c in ranked if c % strata == a] for a in range(strata)]
    if rules.top_fraction is not None:
        kept &= {c for each in by_alpha for c in each[: max(1, math.floor(rules.top_fraction * len(each) + 0.5))]}
    if rules.top_count is not None:
        share = [len(range(a, rules.top_count, strata)) for a in range(strata)]  # dealt out one by one
        kept &= {c for a, each in enumerate(by_alpha) for c in each[: share[a]]}
    return sorted(kept)


rules = st.builds(
    Select,
    tau=st.none() | st.sampled_from([math.exp(-5.0), math.exp(-2.0), 0.001, "auto"]),
    tau_level=st.sampled_from([0.05, 0.2, 0.5]),
    typical=st.none() | st.sampled_from([0.2, 0.5, 0.9]),
    top_fraction=st.sampled_from([0.01, 0.2, 0.5, 1.0]),
    top_count=st.none() | st.integers(1, 80),
    stratify=st.booleans(),
)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(
    values=st.lists(st.integers(-8, -1) | st.just(-np.inf), min_size=1, max_size=60),  # few values: many ties
    rules=rules,
    no_top=st.booleans(),
    n_alphas=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    slack=st.sampled_from([0, 1, 1000]),
)
def test_streaming_is_the_full_sort(
    values: list[float], rules: Select, no_top: bool, n_alphas: int, seed: int, cuts: list[int], slack: int
) -> None:
    if no_top and (rules.tau is not None or rules.typical is not None):
        rules = rules.model_copy(update={"top_fraction": None, "top_count": None, "stratify": False})
    scores = np.array(values, float)
    rng = np.random.default_rng(seed)
    held_out = rng.integers(-9, 0, 19 + seed % 20).astype(float)
    chunks = [(part, scores[part]) for part in np.split(rng.permutation(len(scores)), sorted(cuts))]
    want = oracle(scores, rules, n_alphas, held_out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "SLACK", slack)
        if not want:
            with pytest.raises(NothingSelectedError):
                select(iter(chunks), len(scores), rules, n_alphas=n_alphas, held_out=held_out)
            return
        got = select(iter(chunks), len(scores), rules, n_alphas=n_alphas, held_out=held_out)
    assert got.ids.dtype == np.int64
    assert got.ids.tolist() == want
    assert got.threshold_log == scores[want].min()
    assert got.n_candidates == len(scores)
    assert got.rules[got.binding] == min(got.rules.values()) >= len(want)
    for rule in got.rules:  # each as if it had been alone
        others = {name: None for name in ("tau", "typical", "top_fraction", "top_count") if name != rule}
        alone = rules.model_copy(update=others)
        assert got.rules[rule] == len(oracle(scores, alone, n_alphas, held_out))


def test_the_papers_numbers() -> None:
    scores = np.random.default_rng(0).standard_normal(50_000)
    got = select([(np.arange(50_000), scores)], 50_000, Select())
    assert len(got.ids) == 10_000
    assert got.rules == {"top_fraction": 10_000}
    assert got.threshold_log == np.sort(scores)[-10_000]


def test_memory_holds_the_kept_and_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "SLACK", 100)
    held = []
    add = best.Best.add

    def spy(self, ids, scores):
        add(self, ids, scores)
        held.append(self.held)

    monkeypatch.setattr(best.Best, "add", spy)
    scores = np.arange(20_000.0)  # ascending: each chunk beats all before it
    got = select(((ids, scores[ids]) for ids in np.split(np.arange(20_000), 200)), 20_000, Select(top_count=50))
    assert got.ids.tolist() == list(range(19_950, 20_000))
    assert max(held) <= 2 * 50 + 100 + 100


def test_tau_is_strict() -> None:
    scores = np.log([0.1, 0.2, 0.3])
    rule = Select(tau=float(np.exp(scores[1])), top_fraction=None)
    assert math.log(rule.tau or 0) == scores[1]
    assert select([(np.arange(3), scores)], 3, rule).ids.tolist() == [2]


def test_nothing_selected_lists_usable_thresholds() -> None:
    scores = np.log(np.linspace(1e-6, 1e-4, 1001))
    with pytest.raises(NothingSelectedError) as caught:
        select([(np.arange(1001), scores)], 1001, Select(tau=0.28))
    text = str(caught.value)
    assert "select.tau = 0.28 keeps none of 1001" in text
    assert "approximate" not in text
    for level in (0.5, 0.8, 0.9, 0.99, 1.0):
        lds = 1e-6 + level * 99e-6
        assert f"{lds:.6g}" in text
        assert f"{math.log(lds):.6g}" in text
    retry = select([(np.arange(1001), scores)], 1001, Select(tau=8.02e-5, top_fraction=None))
    assert len(retry.ids) == 200


def test_quantiles_of_many_come_from_a_sample_that_ignores_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "SAMPLE", 2000)
    ids = np.arange(20_000)
    scores = np.log(np.linspace(1e-6, 1e-4, 20_000))
    texts = set()
    for order in (ids, ids[::-1], np.random.default_rng(0).permutation(ids)):
        with pytest.raises(NothingSelectedError, match="approximate: from a sample of") as caught:
            select([(part, scores[part]) for part in np.array_split(order, 7)], 20_000, Select(tau=0.28))
        texts.add(str(caught.value))
    assert len(texts) == 1
    median = float(texts.pop().split("keeps about the densest 50%")[0].splitlines()[-1].split()[0])
    assert median == pytest.approx(5.05e-5, rel=0.1)


def test_underflowed_densities_are_not_offered_as_tau() -> None:
    with pytest.raises(NothingSelectedError, match=r"too small for a tau \(log LDS -5000\)"):
        select([(np.arange(4), np.full(4, -5000.0))], 4, Select(tau=0.28))


# Held-out real latents


@pytest.mark.parametrize("n", [19, 20, 100])
def test_conformal_coverage_of_exchangeable_scores(n: int) -> None:
    """Of a further score from the same distribution: never less than promised, nor more than a rank's worth."""
    rng = np.random.default_rng(n)
    inside = above = 0
    trials = 20_000
    for draw in rng.gumbel(size=(trials, n + 1)):
        low, high = conformal_band(draw[1:], 0.9)
        inside += low <= draw[0] <= high
        above += draw[0] >= conformal_bound(draw[1:], 0.1)
    error = 4 * math.sqrt(0.1 * 0.9 / trials)
    assert 0.9 - error < inside / trials < 0.9 + 2 / (n + 1) + error
    assert 0.9 - error < above / trials < 0.9 + 1 / (n + 1) + error


def test_ties_keep_the_promise() -> None:
    held_out = np.repeat([-3.0, -2.0], 10)
    assert conformal_bound(held_out, 0.1) == -3.0
    kept = select([(np.arange(2), np.array([-3.0, -4.0]))], 2, Select(tau="auto"), held_out=held_out)
    assert kept.ids.tolist() == [0]  # at the bound: kept
    assert (kept.auto_log, kept.typical_log) == (-3.0, None)


@pytest.mark.parametrize(
    ("rule", "needed"), [(Select(tau="auto"), 19), (Select(tau="auto", tau_level=0.3), 3), (Select(typical=0.9), 19)]
)
def test_too_few_held_out_latents_say_how_many_are_needed(rule: Select, needed: int) -> None:
    scores = [(np.arange(2), np.array([-1.0, -0.5]))]
    assert len(select(scores, 2, rule, held_out=np.linspace(-2, 0, needed)).ids)
    for held_out in (None, np.zeros(0), np.zeros(needed - 1)):
        with pytest.raises(ImpossibleError, match=f"needs at least {needed} held-out latents"):
            select(scores, 2, rule, held_out=held_out)
    with pytest.raises(InputError, match="held-out latent is NaN"):
        select(scores, 2, rule, held_out=np.full(needed, np.nan))


def test_a_band_that_holds_no_candidate_says_where_they_lie() -> None:
    held_out, ids = np.linspace(-9, -5, 99), np.arange(10)
    scores = np.concatenate([np.linspace(-4, -1, 8), [-20, -10]])
    with pytest.raises(NothingSelectedError) as caught:
        select([(ids, scores)], 10, Select(typical=0.9), held_out=held_out)
    low, high = conformal_band(held_out, 0.9)
    for part in (f"from {low:.6g} to {high:.6g}", "2 lie below it, 0 within, 8 above", "-1 (the maximum)", "slerp"):
        assert part in str(caught.value)
    with pytest.raises(
        NothingSelectedError, match=r"Alone the rules keep 1 \(typical\), 5 \(top_count\); together none"
    ):
        select([(ids, np.append(scores[:-1], -7))], 10, Select(typical=0.9, top_count=5), held_out=held_out)
    with pytest.raises(NothingSelectedError, match=r"tau = auto, here 0.00\d+ .* keeps none of 10"):
        select([(ids, scores - 10)], 10, Select(tau="auto"), held_out=held_out)


def test_every_alpha_is_kept_equally() -> None:
    scores = np.random.default_rng(0).standard_normal(900) + np.arange(900) % 9
    got = select([(np.arange(900), scores)], 900, Select(stratify=True), n_alphas=9)
    assert np.bincount(got.ids % 9).tolist() == [20] * 9
    got = select([(np.arange(900), scores)], 900, Select(stratify=True, top_count=4), n_alphas=9)
    assert np.bincount(got.ids % 9, minlength=9).tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    with pytest.raises(InputError, match="do not have each of 9 alphas in turn"):
        select([(np.arange(0, 27, 3), scores[:9])], 9, Select(stratify=True), n_alphas=9)


def test_wrong_input() -> None:
    one = np.zeros(1)
    with pytest.raises(InputError, match="no candidates"):
        select([], 0, Select())
    with pytest.raises(InputError, match="2 candidates were announced but 1 scores came"):
        select([(np.arange(1), one)], 2, Select())
    with pytest.raises(InputError, match="candidate 7 is NaN"):
        select([(np.array([6, 7]), np.array([0.0, np.nan]))], 2, Select())
    with pytest.raises(InputError, match="candidate 5 was scored more than once"):
        select([(np.array([5]), one), (np.array([5]), one)], 2, Select(top_fraction=1.0))
    with pytest.raises(InputError, match="as many ids as scores"):
        select([(np.arange(2), one)], 2, Select())
