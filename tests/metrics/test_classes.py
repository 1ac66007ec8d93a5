"""Labels with many values: against hand-computed values and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.a_attribute_gap import label_gap
from ldsaug_ray.metrics.classes import (
    class_attribute,
    corrected_shares,
    effective_classes,
    shares_by_parents,
    shares_of,
    total_variation,
)


def test_effective_classes_are_exp_of_the_entropy() -> None:
    assert effective_classes([0.25] * 4) == pytest.approx(4)
    assert effective_classes([1.0, 0.0]) == 1
    p = np.array([0.5, 0.3, 0.2])
    assert effective_classes(p) == pytest.approx(np.exp(stats.entropy(p)))


def test_total_variation_by_hand() -> None:
    assert total_variation([0.5, 0.5, 0], [0.25, 0.25, 0.5]) == pytest.approx(0.5)
    assert total_variation([1, 0], [0, 1]) == 1


def test_shares_are_of_the_known_labels() -> None:
    values = np.array([1, 3, 4])
    assert shares_of(np.array([1, 3, 3, 0, 4]), values).tolist() == [0.25, 0.5, 0.25]
    assert shares_of(np.empty(0, np.int32), values).tolist() == [0, 0, 0]


def test_a_member_is_of_its_parents_labels_by_nearness() -> None:
    parents = np.array([[1, 1], [1, 3], [3, 4], [0, 4]])
    found = shares_by_parents(parents, [0.3, 0.25, 0.5, 0.9], np.array([1, 3, 4]))
    assert found is not None
    np.testing.assert_allclose(found, np.array([1 + 0.75, 0.25 + 0.5, 0.5]) / 3)
    assert shares_by_parents(parents[3:], [0.9], np.array([4])) is None


def test_the_gap_of_two_values_is_the_difference_of_shares_and_of_many_their_distance() -> None:
    two = np.array([[1, -1], [1, 1]], np.int8)
    assert label_gap(two, np.array([0.5, 0.5]), np.array([1, -1, -1, -1])) == pytest.approx(0.75 - 0.25)
    many = np.array([[1, 3], [4, 4]])
    gap = label_gap(many, np.array([0.5, 0.5]), np.array([1, 1, 3, 4, 0]))
    assert gap == pytest.approx(total_variation([0.25, 0.25, 0.5], [0.5, 0.25, 0.25]))


def test_confusions_are_undone() -> None:
    confusion = np.array([[80, 15, 5], [10, 85, 5], [0, 20, 80]])
    true = np.array([0.6, 0.1, 0.3])
    apparent = true @ (confusion / 100)
    np.testing.assert_allclose(corrected_shares(apparent, confusion), true, atol=1e-6)
    # where the probe finds fewer than its errors alone would give, a share is 0, not below
    assert corrected_shares([1.0, 0.0, 0.0], confusion).min() == 0


def sets(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    centres = 6 * rng.normal(size=(4, 8))
    labels = {"train": rng.integers(1, 5, 400), "test": np.repeat([1, 2, 3, 4], 50)}
    of_a = np.repeat([1, 2, 3, 4], [140, 40, 20, 0])
    every = {**labels, "augmented": of_a}
    features = {name: (centres[y - 1] + rng.normal(size=(len(y), 8))).astype(np.float32) for name, y in every.items()}
    return features, labels, of_a


def test_a_probe_finds_the_shares_of_images_without_labels() -> None:
    features, labels, _ = sets(np.random.default_rng(0))
    found = class_attribute("digit", features, labels)
    assert found.categorical
    assert found.probe["values"] == [0, 1, 2, 3]
    assert found.balanced_accuracy > 0.98
    a = found.shares["augmented"]
    np.testing.assert_allclose(list(a.more["shares"].values()), [0.7, 0.2, 0.1, 0], atol=0.03)
    assert a.value == pytest.approx(0.45, abs=0.03)
    assert a.more["effective_classes"] == pytest.approx(np.exp(stats.entropy([0.7, 0.2, 0.1])), abs=0.1)
    assert found.shares["test"].value == 0
    counts = np.bincount(labels["train"], minlength=5)[1:] / 400
    np.testing.assert_allclose(list(found.shares["train"].more["shares"].values()), counts)


def test_a_class_that_a_split_lacks_is_told() -> None:
    features, labels, _ = sets(np.random.default_rng(0))
    test = np.where(labels["test"] == 2, 3, labels["test"])
    with pytest.raises(InputError, match=r"training and test images do not both have 1; raise data.test"):
        class_attribute("digit", features, {**labels, "test": test})
    train = labels["train"].copy()
    train[np.flatnonzero(train == 2)[3:]] = 0
    with pytest.raises(InputError, match=r"labels of digit: 4 values, 3 training images of 1"):
        class_attribute("digit", features, {**labels, "train": train})
