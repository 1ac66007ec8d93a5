"""Selection within groups: against sorting each group by itself, any grouping, any cut into parts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsaug_ray.config import Config, Select, load_config
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError, NothingSelectedError
from ldsaug_ray.selection import best, select, threshold
from ldsaug_ray.selection.balance import Grouped, cells, counted, even, grouping, nearer, proportional
from ldsaug_ray.selection.rule import chosen


def splitmix(x: int) -> int:
    """Of Steele et al. 2014, in whole numbers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def rank(group: int, seed: int) -> int:
    return splitmix((group + splitmix(seed)) % 2**64)


def hamilton(sizes: list[int], total: int, seed: int) -> list[int]:
    """Largest remainders in fractions."""
    total, n = min(total, sum(sizes)), sum(sizes)
    exact = [Fraction(size * total, n) for size in sizes]
    quotas = [math.floor(x) for x in exact]
    order = sorted(range(len(sizes)), key=lambda g: (-(exact[g] - quotas[g]), rank(g, seed)))
    for g in order[: total - sum(quotas)]:
        quotas[g] += 1
    return quotas


def dealt(sizes: list[int], total: int, seed: int) -> list[int]:
    """Round by round, one to each group that has another."""
    quotas = [0] * len(sizes)
    while total > 0 and (room := [g for g in range(len(sizes)) if quotas[g] < sizes[g]]):
        for g in sorted(room, key=lambda g: rank(g, seed))[:total]:
            quotas[g] += 1
        total -= min(total, len(room))
    return quotas


counts = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(sizes=counts, total=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_counts_add_up_exactly(sizes: list[int], total: int, seed: int) -> None:
    for ours, oracle in ((proportional, hamilton), (even, dealt)):
        got = ours(np.array(sizes), total, seed)
        assert got.tolist() == oracle(sizes, total, seed)
        assert got.sum() == min(total, sum(sizes))
        assert (got <= sizes).all()


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    values=st.lists(st.integers(-8, -1) | st.just(-np.inf), min_size=1, max_size=60),  # few values: many ties
    n_groups=st.integers(1, 9),
    fraction=st.none() | st.sampled_from([0.01, 0.2, 0.5, 1.0]),
    count=st.none() | st.integers(1, 80),
    tau=st.none() | st.sampled_from([math.exp(-5.0)]),
    n_alphas=st.integers(1, 4),
    stratify=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    slack=st.sampled_from([0, 1, 1000]),
)
def test_each_group_sorted_by_itself(
    values: list[float],
    n_groups: int,
    fraction: float | None,
    count: int | None,
    tau: float | None,
    n_alphas: int,
    stratify: bool,
    seed: int,
    cuts: list[int],
    slack: int,
) -> None:
    if fraction is None and count is None:
        count = 7
    rules = Select(top_fraction=fraction, top_count=count, tau=tau, stratify=stratify, balance="parent")
    n, rng = len(values), np.random.default_rng(seed)
    scores, of = np.array(values, float), rng.integers(0, n_groups, n)
    strata = n_alphas if stratify else 1
    ranked = sorted(range(n), key=lambda c: (-scores[c], c))
    each = [[c for c in ranked if of[c] == g and c % strata == a] for g in range(n_groups) for a in range(strata)]
    sizes = [len(cell) for cell in each]
    want = {c for c in ranked if tau is None or scores[c] > math.log(tau)}
    if fraction is not None:
        quotas = hamilton(sizes, max(1, math.floor(fraction * n + 0.5)), seed)
        want &= {c for cell, k in zip(each, quotas, strict=True) for c in cell[:k]}
    if count is not None:
        want &= {c for cell, k in zip(each, dealt(sizes, count, seed), strict=True) for c in cell[:k]}
    parts = np.split(rng.permutation(n), sorted(cuts))
    groups = counted([(part, of[part]) for part in parts], n_groups, strata)
    assert groups.tolist() == sizes
    chunks = [(part, scores[part], of[part]) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "SLACK", slack)
        arguments = {"n_alphas": n_alphas, "groups": groups, "seed": seed}
        if not want:
            with pytest.raises(NothingSelectedError):
                select(iter(chunks), n, rules, **arguments)
        else:
            assert select(iter(chunks), n, rules, **arguments).ids.tolist() == sorted(want)


def test_memory_holds_the_kept_and_a_quarter_more(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    add = best.BestOfGroups.add

    def spy(self, *chunk):
        add(self, *chunk)
        held.append(self.count)

    monkeypatch.setattr(best.BestOfGroups, "add", spy)
    monkeypatch.setattr(threshold, "SLACK", 100)
    ids = np.arange(20_000)  # ascending: each chunk beats all before it
    chunks = ((part, part.astype(float), part % 7) for part in np.split(ids, 200))
    rules = Select(top_count=70, balance="parent")
    got = select(chunks, len(ids), rules, groups=np.bincount(ids % 7))
    assert got.ids.tolist() == list(range(20_000 - 70, 20_000))
    assert max(held) <= 1.25 * 70 + 100 + 100


def test_a_candidate_is_of_its_nearer_parent() -> None:
    ids = np.arange(4000)
    alpha = np.tile([0.1, 0.5, 0.9, -0.5, 1.5, 0.3 + 0.2 - 1e-17, 0.4, 0.6], 500)
    z = np.random.default_rng(0).normal(size=(2, 5))
    points = (1 - alpha[:, None]) * z[0] + alpha[:, None] * z[1]
    gaps = np.linalg.norm(points[:, None] - z, axis=2)
    tied = np.isclose(gaps[:, 0], gaps[:, 1], rtol=1e-9)
    found = nearer(ids, alpha, 3)
    assert (found[~tied] == (gaps[:, 1] < gaps[:, 0])[~tied]).all()
    assert tied.sum() == 1000
    assert found[tied].tolist() == [splitmix((int(c) + splitmix(3)) % 2**64) >> 63 == 1 for c in ids[tied]]
    assert abs(found[tied].mean() - 0.5) < 4 * 0.5 / 1000**0.5  # four standard errors


def test_cells_are_the_clusters_that_there_are() -> None:
    rng = np.random.default_rng(1)
    of = rng.integers(0, 4, 300)
    z = (100 * np.eye(4, 6)[of] + rng.normal(size=(300, 6))).astype(np.float32)
    found = cells(z, 4, 7)
    assert (found == cells(z, 4, 7)).all()
    assert len({(int(a), int(b)) for a, b in zip(of, found, strict=True)}) == 4  # one to one
    with pytest.raises(ImpossibleError, match=r"select.clusters = 301 cells of 300 training latents"):
        cells(z, 301, 7)


def test_of_many_latents_a_sample_is_clustered() -> None:
    of = np.arange(300) % 3
    z = (100 * np.eye(3)[of]).astype(np.float32)
    assert len({(int(a), int(b)) for a, b in zip(of, cells(z, 3, 0, fitted=64), strict=True)}) == 3


def test_labels_are_groups_and_one_that_is_missing_is_an_error() -> None:
    z, keys = np.zeros((4, 2), np.float32), ["a", "b", "c", "d"]
    found = grouping("label:digit", z, keys, {"digit": np.array([7, 2, 2, 9])})
    assert found.of.tolist() == [1, 0, 0, 2]
    assert list(found.names) == ["digit 2", "digit 7", "digit 9"]
    with pytest.raises(InputError, match=r"1 of 4 training images have no such label, as 'c'"):
        grouping("label:Male", z, keys, {"Male": np.array([1, -1, 0, 1])})
    with pytest.raises(InputError, match=r"no such label; known are: Male"):
        grouping("label:digit", z, keys, {"Male": np.array([1, -1, 1, 1])})


def config(*overrides: str) -> Config:
    return load_config(None, ["run_dir=r", "data.source=s", "seed=7", "score.alphas=[0.5]", *overrides])


def tables() -> list[pa.Table]:
    of, scores = np.array([0] * 6 + [1] * 2 + [2] * 12), np.arange(20.0)
    return [pa.table({"candidate": c, "log_lds": scores[c], "group": of[c]}) for c in np.split(np.arange(20), [3, 11])]


def test_short_groups_are_named_and_others_take_their_places() -> None:
    c = config("select.top_count=12", "select.balance=parent")
    found = chosen(Grouped(["x.png", "y.png", "z.png"], tables), 20, c, None)
    assert found.ids.tolist() == [*range(1, 6), 6, 7, *range(15, 20)]
    assert found.note == (
        "1 of 3 groups have fewer candidates than their even share of top_count, 4 (y.png: 2): the others take their "
        "places"
    )
    everything = chosen(
        Grouped(["x", "y", "z"], tables), 20, config("select.top_count=90", "select.balance=parent"), None
    )
    assert (len(everything.ids), everything.groups) == (20, 3)
    few = chosen(Grouped(["x", "y", "z"], tables), 20, config("select.top_count=2", "select.balance=parent"), None)
    assert (len(few.ids), few.groups) == (2, 2)
    assert everything.note.endswith("30 (y: 2, x: 6, z: 12): there are only 20 in all")


def test_a_share_of_each_group_in_the_words_of_the_rule() -> None:
    c = config("select.top_fraction=0.5", "select.balance=parent")
    found = chosen(Grouped(["x", "y", "z"], tables), 20, c, None)
    assert found.ids.tolist() == [3, 4, 5, 7, *range(14, 20)]
    assert (found.groups, found.note) == (3, "")
    numbers = {"rows_in": 20, "rows_out": 10, "threshold_tau": 0.1, "threshold_log_lds": -2.3, "paper_tau": 0.28}
    entry = {**numbers, "binding_rule": "top_fraction", "groups": 3, "balance": "parent"}
    assert c.select.rule.sentence(entry).startswith(
        "kept 10 of 20 candidates, the densest of each of 3 groups (select.balance: parent): LDS ≥ 0.1"
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["select.balance=modes"], "unknown select.balance 'modes'; possible: none, label:NAME, cluster, parent"),
        (["select.balance=label:digit"], "label:digit needs labelled images; set data.attributes"),
        (["select.balance=parent", "select.tau=0.1"], "balance goes with top_fraction or top_count"),
        (["select.balance=parent", "select.clusters=0"], "clusters"),
    ],
)
def test_what_cannot_be_is_told(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        config(*overrides)
