from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsaug_ray.config.settings import Select
from ldsaug_ray.errors import InputError, NothingSelectedError
from ldsaug_ray.lds import select, threshold


def oracle(scores: np.ndarray, rules: Select) -> list[int]:
    """Sort everything by (-score, id), then apply each rule by itself."""
    n = len(scores)
    ranked = sorted(range(n), key=lambda c: (-scores[c], c))
    kept = set(ranked)
    if rules.tau is not None:
        kept &= {c for c in ranked if scores[c] > math.log(rules.tau)}
    if rules.top_fraction is not None:
        kept &= set(ranked[: max(1, math.floor(rules.top_fraction * n + 0.5))])
    if rules.top_count is not None:
        kept &= set(ranked[: rules.top_count])
    return sorted(kept)


rules = st.builds(
    Select,
    tau=st.none() | st.sampled_from([math.exp(-5.0), math.exp(-2.0), 0.001]),
    top_fraction=st.sampled_from([0.01, 0.2, 0.5, 1.0]),
    top_count=st.none() | st.integers(1, 80),
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(-8, -1) | st.just(-np.inf), min_size=1, max_size=60),  # few values: many ties
    rules=rules,
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    slack=st.sampled_from([0, 1, 1000]),
)
def test_streaming_is_the_full_sort(values: list[float], rules: Select, seed: int, cuts: list[int], slack: int) -> None:
    scores = np.array(values, float)
    order = np.random.default_rng(seed).permutation(len(scores))
    chunks = [(part, scores[part]) for part in np.split(order, sorted(cuts))]
    want = oracle(scores, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "SLACK", slack)
        if not want:
            with pytest.raises(NothingSelectedError):
                select(iter(chunks), len(scores), rules)
            return
        got = select(iter(chunks), len(scores), rules)
    assert got.ids.dtype == np.int64
    assert got.ids.tolist() == want
    assert got.threshold_log == scores[want].min()
    assert got.n_candidates == len(scores)
    assert got.rules[got.binding] == min(got.rules.values()) == len(want)


def test_the_papers_numbers() -> None:
    scores = np.random.default_rng(0).standard_normal(50_000)
    got = select([(np.arange(50_000), scores)], 50_000, Select())
    assert len(got.ids) == 10_000
    assert got.rules == {"top_fraction": 10_000}
    assert got.threshold_log == np.sort(scores)[-10_000]


def test_memory_holds_the_kept_and_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "SLACK", 100)
    held = []
    add = threshold._Best.add

    def spy(self, ids, scores):
        add(self, ids, scores)
        held.append(self.held)

    monkeypatch.setattr(threshold._Best, "add", spy)
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
