"""Labels with many values among images: shares of each, effective classes, total variation distance to the test split.

Of images without labels they come from a multinomial probe on features, corrected by its confusions on held-out images
as `balance` does for two values; of A from its parents' labels. Labels are the value + 1, 0 where not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.balance import FOLDS, PENALTIES
from ldsaug_ray.metrics.features import checked_features
from ldsaug_ray.metrics.record import Attribute, Reading

Array = NDArray[np.float64]
Codes = NDArray[np.integer]


def effective_classes(shares: ArrayLike) -> float:
    """exp(entropy): how many equally frequent classes are as diverse; shares: [V], summing to 1."""
    p = np.asarray(shares, np.float64)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def total_variation(a: ArrayLike, b: ArrayLike) -> float:
    """Half the sum of |differences| of two distributions [V]: 0 where equal, 1 where nothing is in common."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).sum() / 2)


def shares_of(labels: Codes, values: Codes) -> Array:
    """Share of each of `values`, [V], among the known of labels [N]; all 0 where none is known."""
    counts = (labels[:, None] == values).sum(axis=0) if len(labels) else np.zeros(len(values))
    return np.asarray(counts / max(1, counts.sum()), np.float64)


def shares_by_parents(parents: Codes, alphas: ArrayLike, values: Codes) -> Array | None:
    """Share of each value among interpolants, [V]: a member (1 - alpha) i + alpha j is of its parents' labels [K, 2] by
    these weights, wholly where they agree. None where no member has two labelled parents."""
    known = (parents != 0).all(axis=1)
    if not known.any():
        return None
    weight = np.clip(np.asarray(alphas, np.float64)[known], 0, 1)
    shares = [np.bincount(np.searchsorted(values, side), w, len(values)) for side, w in _sides(parents[known], weight)]
    return np.asarray(sum(shares) / len(weight), np.float64)


def _sides(parents: Codes, weight: Array) -> list[tuple[Codes, Array]]:
    return [(parents[:, 0], 1 - weight), (parents[:, 1], weight)]


def check_classes(name: str, train: Codes, test: Codes | None = None) -> None:
    """Raise InputError where these labels [N] do not do for a probe: fewer than two classes, fewer training images of
    one than folds, or, given the test images' [T], one that is not in both splits."""
    values, counts = np.unique(train[train != 0], return_counts=True)
    if len(values) < 2 or counts.min() < FOLDS:
        few = f", {counts.min()} training images of {values[counts.argmin()] - 1}" if len(values) else ""
        raise InputError(
            f"labels of {name}: {len(values)} values{few}; a probe needs two values and {FOLDS} training images of "
            "each: leave it out of evaluate.attributes"
        )
    if test is None:
        return
    lacking = sorted(set(values.tolist()) ^ set(test[test != 0].tolist()))
    if lacking:
        of = ", ".join(str(value - 1) for value in lacking[:5]) + (", …" if len(lacking) > 5 else "")
        raise InputError(
            f"labels of {name}: training and test images do not both have {of}; raise data.test, or leave it out of "
            "evaluate.attributes"
        )


def class_probe(features: ArrayLike, labels: Codes, name: str, *, seed: int = 0) -> tuple[Any, float]:
    """Multinomial logistic regression on standardised features float[N, C], classes weighing the same, and its penalty:
    that of the best balanced accuracy in stratified cross-validation, the strongest of equals.

    Raises:
        InputError: fewer than two classes, or fewer images of one than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = checked_features(features, "the features").astype(np.float64)
    check_classes(name, labels)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(model, {"logisticregression__C": PENALTIES}, scoring="balanced_accuracy", cv=folds)
    search.fit(x, labels)
    return search.best_estimator_, float(search.best_params_["logisticregression__C"])


def corrected_shares(apparent: ArrayLike, confusion: ArrayLike) -> Array:
    """True shares [V] of which a probe with these confusions finds `apparent` [V]: the non-negative ones, summing to 1,
    that fit best (Rogan & Gladen 1978 for two values). confusion: [V, V], images of a value found to be another."""
    from scipy.optimize import nnls

    counts = np.asarray(confusion, np.float64)
    rates = counts / counts.sum(axis=1, keepdims=True)
    heavy = 1e3  # on the sum
    found, _ = nnls(
        np.vstack([rates.T, np.full(len(rates), heavy)]), np.append(np.asarray(apparent, np.float64), heavy)
    )
    return np.asarray(found / found.sum(), np.float64)


def class_attribute(name: str, features: Mapping[str, Array], labels: Mapping[str, Codes]) -> Attribute:
    """Of each set the total variation distance to the test split as value, and shares and effective classes.

    Args:
        name: of the label.
        features: set -> float[N, C], train and test among them.
        labels: train and test -> int[N].

    Raises:
        InputError: too few labelled images for a probe, or a class that the test split lacks.
    """
    known = {split: of != 0 for split, of in labels.items()}
    values = np.unique(labels["train"][known["train"]])
    test = labels["test"][known["test"]]
    check_classes(name, labels["train"], test)
    probe, penalty = class_probe(features["train"][known["train"]], labels["train"][known["train"]], name)
    predicted = probe.predict(features["test"][known["test"]].astype(np.float64))
    confusion = np.zeros((len(values), len(values)), np.int64)
    np.add.at(confusion, (np.searchsorted(values, test), np.searchsorted(values, predicted)), 1)
    real = shares_of(test, values)
    shares = {}
    for set_name, found in features.items():
        counted = set_name in labels
        if counted:
            here = shares_of(labels[set_name], values)
            n = int(known[set_name].sum())
        else:
            here = corrected_shares(shares_of(probe.predict(found.astype(np.float64)), values), confusion)
            n = len(found)
        shares[set_name] = Reading(
            total_variation(here, real),
            more={
                "n": n,
                "labelled": counted,
                "effective_classes": effective_classes(here),
                "shares": {str(value - 1): share for value, share in zip(values.tolist(), here.tolist(), strict=True)},
            },
        )
    recall = np.diag(confusion) / confusion.sum(axis=1)
    facts = {"penalty": penalty, "values": (values - 1).tolist(), "balanced_accuracy": {"value": float(recall.mean())}}
    return Attribute(facts, shares)
