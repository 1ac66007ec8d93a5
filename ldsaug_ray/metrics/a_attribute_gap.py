"""How far the share of an attribute among A, by the labels of its parents, is from its share among test images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import MeasureOfA, Members, Real, built_in
from ldsaug_ray.metrics.classes import shares_by_parents, shares_of, total_variation


def label_gap(parents: NDArray[np.integer], alphas: NDArray[np.float64], real: NDArray[np.integer]) -> float | None:
    """Total variation distance between A's and real images' labels, 0 for unknown: of two values the difference between
    the shares of one.

    Args:
        parents: int[K, 2], labels of each member's parents i and j.
        alphas: float64[K]; the member is (1 - alpha) i + alpha j.
        real: int[T], labels of test images.

    Returns: None where no member has two labelled parents, or no test image a label.
    """
    values = np.unique([*parents.reshape(-1), *real])
    values = values[values != 0]
    shares = shares_by_parents(parents, alphas, values)
    if shares is None or not real.any():
        return None
    return total_variation(shares, shares_of(real, values))


def _prepared(real: Real) -> Real:
    if not real.labels.shape[1]:
        raise InputError("evaluate.attributes names none")
    for column, (of_train, of_test) in enumerate(zip(real.labels.T, real.real_labels.T, strict=True)):
        if not of_test.any():
            raise InputError(f"no test image has a label of evaluate.attributes[{column}]")
        if np.count_nonzero(of_train) < 2:
            raise InputError(f"no two training images have a label of evaluate.attributes[{column}]")
    return real


def _gap(real: Real, a: Members) -> float | None:
    """Mean of `label_gap` over the attributes; None where one is not known."""
    gaps = []
    for of_train, of_test in zip(real.labels.T, real.real_labels.T, strict=True):
        gap = label_gap(np.stack([of_train[a.i], of_train[a.j]], axis=1), a.alpha, of_test)
        if gap is None:
            return None
        gaps.append(gap)
    return float(np.mean(gaps)) if gaps else None


A_ATTRIBUTE_GAP = built_in(
    MeasureOfA(
        name="a_attribute_gap",
        title="A: attribute gap",
        better="less",
        needs=("attributes",),
        place=2,
        prepare=_prepared,
        take=_gap,
    )
)
