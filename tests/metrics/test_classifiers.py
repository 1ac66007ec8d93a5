"""Classifiers on A: labels and limits by hand, and networks that learn what can be learned, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ldsaug_ray.metrics.downstream import hits, labels_by_parents, one_hot, sentence, summary


def test_labels_of_interpolants_by_hand() -> None:
    values = np.array([1, 4, 5])
    parents = np.array([[1, 4], [5, 5], [0, 4], [4, 9]])  # 0: not known; 9: no class of the training images
    alphas = [0.3, 0.1, 0.5, 0.5]
    soft = labels_by_parents(parents, alphas, values, soft=True)
    np.testing.assert_allclose(soft, [[0.7, 0.3, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], atol=1e-7)
    same = labels_by_parents(parents, alphas, values, soft=False)
    np.testing.assert_array_equal(same, [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    outside = labels_by_parents(np.array([[1, 4]]), [1.2], values, soft=True)  # extrapolated: wholly of the nearer
    np.testing.assert_array_equal(outside, [[0, 1, 0]])
    np.testing.assert_array_equal(one_hot(np.array([5, 0]), values), [[0, 0, 1], [0, 0, 0]])


def _blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    return (100 + 7 * np.eye(5)[labels] + rng.normal(size=(n, 5))).astype(np.float32), labels


def test_features_that_tell_the_classes_are_learned() -> None:
    (x, y), (test, classes) = _blobs(200, 0), _blobs(300, 1)
    how = {"steps": 150, "batch_size": 32, "seed": 3}
    found = hits([(x, one_hot(y, np.arange(3)))], test, classes, **how)
    assert found.mean() > 0.97
    np.testing.assert_array_equal(found, hits([(x, one_hot(y, np.arange(3)))], test, classes, **how))
    wrong = hits([(x, one_hot((y + 1) % 3, np.arange(3)))], test, classes, **how)
    assert wrong.mean() < 0.03
    unknown = hits([(x, one_hot(y, np.arange(3)))], test, np.full(300, -1), **how)
    assert not unknown.any()
    # labels that disagree in half of each batch: neither can be learned, unless the weight of one is larger
    both = [
        (x, one_hot(y, np.arange(3))),
        (x, one_hot((y + 1) % 3, np.arange(3)) * 0.2 + 0.8 * one_hot(y, np.arange(3))),
    ]
    assert hits(both, test, classes, **how).mean() > 0.9


def test_pixels_that_tell_the_classes_are_learned() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=120)
    images = rng.integers(0, 60, (120, 12, 12, 3)).astype(np.uint8)
    images[labels == 1, 2:5] += 150  # a bar above or below
    images[labels == 0, 7:10] += 150
    y = one_hot(labels, np.arange(2))
    found = hits([(images[:80], y[:80])], images[80:], labels[80:], steps=40, batch_size=16, seed=0)
    assert found.mean() > 0.95


def test_limits_are_students_with_the_images_variance() -> None:
    rng = np.random.default_rng(2)
    train, both, alone = ([rng.random(500) < p for _ in range(4)] for p in (0.6, 0.8, 0.3))
    told = summary({"train": train, "train + A": both, "A": alone})
    d = np.array(both, float) - np.array(train, float)
    of_seeds = [row.mean() for row in d]
    error = np.sqrt(stats.sem(of_seeds) ** 2 + stats.sem(d.mean(axis=0)) ** 2)
    low, high = stats.t.interval(0.95, 3, loc=d.mean(), scale=error)
    assert told["gain"] == pytest.approx({"value": d.mean(), "low": low, "high": high})
    assert told["arms"]["A"]["by_seed"] == pytest.approx([x.mean() for x in alone])
    assert "gain" not in summary({"train": train})


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.03, "better"), (-0.03, -0.01, "worse"), (-0.01, 0.03, "no difference")]
)
def test_the_sentence_claims_no_more_than_the_limits(low: float, high: float, verdict: str) -> None:
    arm = {"value": 0.9, "low": 0.88, "high": 0.92}
    arms = dict.fromkeys(("train", "train + A", "A"), arm)
    told = {"label": "digit", "seeds": 5, "arms": arms, "gain": {"value": (low + high) / 2, "low": low, "high": high}}
    assert f"by 5 seeds: {verdict}" in sentence(told)
    assert "90.0 (88.0 to 92.0) % of test images right" in sentence(told)
    assert "there is no A" in sentence({"label": "digit", "arms": {"train": arm}})
