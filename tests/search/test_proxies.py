"""Measures of A that need no training, against a few lines of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import Candidates, interpolate
from ldsaug_ray.metrics import a_nearer
from ldsaug_ray.metrics.a_attribute_gap import label_gap
from ldsaug_ray.search import proxies
from ldsaug_ray.search.proxies import Prepared

N, H, D = 40, 25, 3
RNG = np.random.default_rng(0)
TRAIN, HELD_OUT = (RNG.standard_normal((n, D)).astype(np.float32) for n in (N, H))
LABELS = np.where(RNG.random((N, 1)) < 0.3, 1, -1).astype(np.int8)
REAL_LABELS = np.where(RNG.random((H, 1)) < 0.6, 1, -1).astype(np.int8)


def candidates(m: int) -> Candidates:
    i, j = (RNG.integers(0, N, m) for _ in range(2))
    return Candidates(np.arange(m), i, j, RNG.uniform(0, 1, m))


def real() -> Prepared:
    return Prepared.of(TRAIN, HELD_OUT, LABELS, REAL_LABELS, seed=0)


def log_density(centres: np.ndarray, sigma: float) -> np.ndarray:
    squared = ((HELD_OUT[:, None].astype(float) - centres[None]) ** 2).sum(-1)
    return np.log(np.exp(-squared / (2 * sigma**2)).mean(1))


def test_measures_of_a_small_a():
    a, seen = candidates(15), real()
    members = interpolate(TRAIN, a.i, a.j, a.alpha, "linear")
    found = seen.measures_of(a, "linear")
    sigma = seen.known["a_likelihood"].sigma
    both = log_density(np.concatenate([TRAIN, members]), sigma)
    assert found["a_likelihood"] == pytest.approx((both - log_density(TRAIN, sigma)).mean(), abs=1e-5)
    share = ((1 - a.alpha) * (LABELS[a.i, 0] > 0) + a.alpha * (LABELS[a.j, 0] > 0)).mean()
    assert found["a_attribute_gap"] == pytest.approx(abs(share - (REAL_LABELS > 0).mean()))
    gaps = [np.linalg.norm(TRAIN[None] - x[:, None], axis=-1).min(1) for x in (members, HELD_OUT)]
    assert found["a_nearer"] == pytest.approx((gaps[0][:, None] < gaps[1][None]).mean(), abs=1e-6)


def test_of_a_large_a_a_sample_is_measured(monkeypatch):
    a, seen = candidates(3000), real()
    whole = seen.measures_of(a, "linear")
    monkeypatch.setattr(proxies, "COMPARED", 1000)
    some = seen.measures_of(a, "linear")
    assert some == seen.measures_of(a, "linear")
    assert some != whole
    for name, tolerance in (("a_likelihood", 0.05), ("a_attribute_gap", 0.05), ("a_nearer", 0.1)):
        assert some[name] == pytest.approx(whole[name], abs=tolerance)


def test_of_many_held_out_latents_a_random_sample_is_taken(monkeypatch):
    """Their keys begin with a class: the first ones would be of one class alone."""
    monkeypatch.setattr(proxies, "HELD_OUT", 100)
    many = np.repeat([0.0, 1.0], 200)[:, None] + np.linspace(0, 0.1, 400)[:, None] * np.ones(D)
    many = many.astype(np.float32)

    def held_out(seed: int) -> np.ndarray:
        return Prepared.of(TRAIN, many, LABELS, REAL_LABELS, seed, ["a_likelihood"]).known["a_likelihood"].held_out

    found = held_out(0)
    assert len(found) == 100
    assert len(np.unique(found[:, 0])) == 100
    assert 0.3 < (found[:, 0] > 0.5).mean() < 0.7
    np.testing.assert_array_equal(found, held_out(0))
    assert not np.array_equal(found, held_out(1))


def test_why_a_measure_has_no_value():
    none = LABELS * 0
    one = none.copy()
    one[3] = 1
    train = np.repeat(TRAIN[:4], 10, axis=0)  # duplicates: no bandwidth is the likeliest
    seen = Prepared.of(train, HELD_OUT, LABELS, REAL_LABELS * 0, 0)
    assert list(seen.lacks) == ["a_likelihood", "a_attribute_gap"]
    assert "leave_one_out finds no best sigma" in seen.lacks["a_likelihood"]
    assert "no test image has a label of evaluate.attributes[0]" in seen.lacks["a_attribute_gap"]
    found = seen.measures_of(candidates(9), "linear")
    assert {name for name, value in found.items() if value is None} == set(seen.lacks)

    assert real().lacks == {}
    assert Prepared.of(train, HELD_OUT, none, REAL_LABELS, 0, ["a_nearer"]).lacks == {}  # nobody asked
    for labels in (none, one):
        two = np.concatenate([LABELS, labels], axis=1), np.concatenate([REAL_LABELS, REAL_LABELS], axis=1)
        lacks = Prepared.of(TRAIN, HELD_OUT, *two, 0, ["a_attribute_gap"]).lacks
        assert lacks == {"a_attribute_gap": "no two training images have a label of evaluate.attributes[1]"}
    empty = np.empty((N, 0), np.int8), np.empty((H, 0), np.int8)
    assert "names none" in Prepared.of(TRAIN, HELD_OUT, *empty, 0).lacks["a_attribute_gap"]


def test_held_out_latents_that_cannot_be_scored():
    """The training latents have a bandwidth all the same; were it kept, every trial would end in an error."""
    broken = HELD_OUT.copy()
    broken[0] = np.nan
    seen = Prepared.of(TRAIN, broken, LABELS, REAL_LABELS, 0, ["a_likelihood"])
    assert "NaN" in seen.lacks["a_likelihood"]
    assert seen.measures_of(candidates(9), "linear", ["a_likelihood"]) == {"a_likelihood": None}


def test_what_is_not_asked_for_is_not_measured(monkeypatch):
    a, seen = candidates(30), real()
    whole = seen.measures_of(a, "linear")
    monkeypatch.setattr(a_nearer, "nearest_neighbours", lambda *_, **__: pytest.fail("not asked for"))
    for name in ("a_likelihood", "a_attribute_gap"):
        assert seen.measures_of(a, "linear", [name]) == {name: whole[name]}


def test_forgetting_distances_changes_nothing(monkeypatch):
    seen, whole = real(), candidates(40)
    few = Candidates(whole.id[:9], whole.i[:9], whole.j[:9], whole.alpha[:9])
    asked = [few, whole, few]
    told = [seen.measures_of(a, "linear", ["a_nearer"]) for a in asked]
    kept = seen.known["a_nearer"].known
    assert len(kept) == 40
    monkeypatch.setattr(a_nearer, "KNOWN", 10)
    assert [seen.measures_of(a, "linear", ["a_nearer"]) for a in asked] == told
    assert len(kept) == 9  # all were forgotten before the last


def test_copies_are_nearer_than_real_latents_and_fill_in_nothing():
    seen = real()
    copies = Candidates(np.arange(N), np.arange(N), np.roll(np.arange(N), 1), np.full(N, 1e-6))
    found = seen.measures_of(copies, "linear")
    assert found["a_nearer"] == 1.0
    assert found["a_likelihood"] == pytest.approx(0.0, abs=1e-4)


def test_without_attributes_or_held_out_latents():
    none = np.empty((N, 0), np.int8)
    assert (
        Prepared.of(TRAIN, HELD_OUT, none, np.empty((0, 0), np.int8), 0).measures_of(candidates(5), "linear")[
            "a_attribute_gap"
        ]
        is None
    )
    with pytest.raises(InputError, match=r"data\.test must not be 0"):
        Prepared.of(TRAIN, HELD_OUT[:0], LABELS, REAL_LABELS, 0)


def test_label_gap_weighs_parents_by_nearness():
    parents = np.array([[1, -1], [1, 1], [0, 1], [-1, -1]], np.int8)  # the third has an unlabelled parent
    alphas = np.array([0.25, 0.5, 0.5, 0.5])
    of_real = np.array([1, -1, -1, -1, 0], np.int8)
    assert label_gap(parents, alphas, of_real) == pytest.approx((0.75 + 1 + 0) / 3 - 0.25)
    assert label_gap(parents * 0, alphas, of_real) is None
    assert label_gap(parents, alphas, of_real * 0) is None
