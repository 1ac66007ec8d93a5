"""The share of an attribute, such as female faces, among images without labels, from a classifier that errs.

A linear probe on features is fitted to labelled images, its sensitivity and specificity are counted on held-out ones,
and the share it finds elsewhere is corrected by them, with an interval that knows they are estimates too. The
correction takes it that the probe errs on generated images as often as on real ones; nothing here can check that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.features import checked_features
from ldsaug_ray.metrics.record import Reading

Array = NDArray[np.float64]
Labels = NDArray[np.bool_]

PENALTIES = tuple(10.0**p for p in (-5, -4, -3, -2, -1, 0))  # scikit-learn's C: what is tried
FOLDS = 5
PLAINLY = 3.2905  # standard normal quantile of 99.9 %, two-sided
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of features: the attribute is present where features @ weights + bias > 0.

    weights: float64[C]; attribute: its name; penalty: the C chosen.
    """

    weights: Array
    bias: float
    attribute: str
    penalty: float = 1.0

    def predict(self, features: ArrayLike) -> Labels:
        """bool[N] for features float[N, C]. Raises InputError for invalid features or another dimension."""
        x = checked_features(features, "the features")
        if x.shape[1] != len(self.weights):
            raise InputError(f"the probe for {self.attribute} knows {len(self.weights)} dimensions, found {x.shape[1]}")
        present: Labels = x @ self.weights + self.bias > 0
        return present


def fit_probe(features: ArrayLike, labels: ArrayLike, attribute: str, *, folds: int = FOLDS, seed: int = 0) -> Probe:
    """Logistic regression on standardised features float[N, C] and labels bool[N] (or 1 / -1, or 1 / 0).

    Both classes weigh the same, and the penalty is the one with the best balanced accuracy in stratified
    cross-validation, the strongest of equals.

    Raises:
        InputError: invalid features or labels, one class only, or fewer images of a class than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    x = checked_features(features, "the features").astype(np.float64)
    y = checked_labels(labels, len(x), attribute, least=folds)

    def fitted(rows: NDArray[np.int64], penalty: float) -> tuple[Array, float]:
        scaler = StandardScaler().fit(x[rows])
        model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=2000)
        model.fit(scaler.transform(x[rows]), y[rows])
        weights = model.coef_[0] / scaler.scale_
        return weights, float(model.intercept_[0] - weights @ scaler.mean_)

    scores = np.zeros(len(PENALTIES))
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        for at, penalty in enumerate(PENALTIES):
            weights, bias = fitted(train, penalty)
            scores[at] += balanced_accuracy_score(y[test], x[test] @ weights + bias > 0)
    best = int(scores.argmax())
    weights, bias = fitted(np.arange(len(x)), PENALTIES[best])
    return Probe(weights, bias, attribute, PENALTIES[best])


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProbeQuality:
    """What a probe got right on held-out images: counts, from which everything follows."""

    positives: int
    negatives: int
    true_positives: int
    true_negatives: int

    @property
    def sensitivity(self) -> Interval:
        """Share of images with the attribute that are found, with Wilson's interval at 95 %."""
        return wilson(self.true_positives, self.positives)

    @property
    def specificity(self) -> Interval:
        """Share of images without the attribute that are found to be without, with Wilson's interval at 95 %."""
        return wilson(self.true_negatives, self.negatives)

    @property
    def balanced_accuracy(self) -> Interval:
        """Mean of both; the interval joins theirs as Newcombe (1998, method 10) does for a difference."""
        a, b = self.sensitivity, self.specificity
        value = (a.value + b.value) / 2
        below = float(np.hypot(a.value - a.low, b.value - b.low)) / 2
        above = float(np.hypot(a.high - a.value, b.high - b.value)) / 2
        return Interval(value, value - below, value + above)


def measure_probe(probe: Probe, features: ArrayLike, labels: ArrayLike) -> ProbeQuality:
    """Count on held-out features float[N, C] with labels bool[N].

    Raises:
        InputError: invalid features or labels, or one class only.
    """
    found = probe.predict(features)
    y = checked_labels(labels, len(found), probe.attribute)
    return ProbeQuality(int(y.sum()), int((~y).sum()), int((found & y).sum()), int((~found & ~y).sum()))


@dataclass(frozen=True)
class Share:
    """The share of an attribute among n images.

    apparent: what the probe finds; corrected: by Rogan & Gladen, within 0..1; low, high: confidence limits at `level`
    of the true share.
    """

    apparent: float
    corrected: float
    low: float
    high: float
    n: int
    level: float


def attribute_share(found: ArrayLike, quality: ProbeQuality, *, level: float = LEVEL) -> Share:
    """The true share from a probe's verdicts bool[M] and its counted quality.

    The probe must err on these images as it does on held-out real ones. Where even the 99.9 % interval lies outside
    0..1 it plainly does not: a share cut off at 0 or 1 would be a false certainty. Where only the interval of `level`
    does, the wider one stands for it.

    corrected = (apparent + specificity − 1) / (sensitivity + specificity − 1) (Rogan & Gladen 1978). The limits are
    those of Lang & Reiczigel (2014), which cover although sensitivity and specificity are estimates from few images.

    Raises:
        InputError: no image, a probe that is no better than chance, or one that errs otherwise on these images.
        ValueError: a level outside 0..1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    verdicts = np.asarray(found, dtype=bool)
    n = verdicts.size
    if not n:
        raise InputError("the share of an attribute needs at least one image")
    se, sp = quality.sensitivity.value, quality.specificity.value
    if se + sp <= 1:
        raise InputError(
            f"the probe is no better than chance (sensitivity {se:.2f}, specificity {sp:.2f} on held-out images): "
            "no share can be estimated; take another extractor, or more labelled images"
        )
    apparent = float(verdicts.mean())
    z = float(ndtri((1 + level) / 2))
    # every count gets a little on both sides before the usual formulas (Lang & Reiczigel 2014, section 2.3)
    n_, se_n, sp_n = n + z**2, quality.positives + 2, quality.negatives + 2
    p = (float(verdicts.sum()) + z**2 / 2) / n_
    se_, sp_ = (quality.true_positives + 1) / se_n, (quality.true_negatives + 1) / sp_n
    youden = se_ + sp_ - 1
    share = (p + sp_ - 1) / youden
    of_se, of_sp = se_ * (1 - se_) / se_n, sp_ * (1 - sp_) / sp_n
    for quantile in (z, max(z, PLAINLY)):
        centre = share + 2 * quantile**2 * (share * of_se - (1 - share) * of_sp)
        reach = quantile * (p * (1 - p) / n_ + share**2 * of_se + (1 - share) ** 2 * of_sp) ** 0.5 / youden
        low, high = centre - reach, centre + reach
        if low <= 1 and high >= 0:
            break
    else:
        raise InputError(
            f"the probe finds the attribute on {apparent:.1%} of {n:,} images, {'fewer' if high < 0 else 'more'} than "
            f"its errors on held-out real images allow (sensitivity {se:.2f}, specificity {sp:.2f}): it errs otherwise "
            "on these images, and no share can be estimated"
        )
    corrected = (apparent + sp - 1) / (se + sp - 1)
    corrected, low, high = (float(np.clip(x, 0, 1)) for x in (corrected, low, high))
    return Share(apparent, corrected, low, high, n, level)


def measure_share(found: ArrayLike, quality: ProbeQuality) -> Reading:
    """`attribute_share` as a reading; or without a value, and why."""
    try:
        share = attribute_share(found, quality)
    except InputError as e:
        return Reading(None, notes=(str(e),))
    return Reading(share.corrected, more=asdict(share))


def describe_probe(probe: Probe, quality: ProbeQuality) -> dict[str, Any]:
    """What a reader must know of a probe, as plain numbers."""
    return {
        "penalty": probe.penalty,
        "labelled": {"with": quality.positives, "without": quality.negatives},
        **{name: asdict(getattr(quality, name)) for name in ("sensitivity", "specificity", "balanced_accuracy")},
    }


def share_by_parents(labels: ArrayLike, alphas: ArrayLike) -> float | None:
    """The share of an attribute among interpolants by the labels of their parents, weighted by nearness: no probe.

    Args:
        labels: int8[K, 2], of the parents i and j: 1, -1, or 0 where not known.
        alphas: float64[K]; a member is (1 − α) i + α j.

    Returns: None where no member has two labelled parents.
    """
    parents = np.asarray(labels)
    known = (parents != 0).all(axis=1)
    if not known.any():
        return None
    i, j = (parents[known] > 0).T
    weight = np.clip(np.asarray(alphas)[known], 0, 1)
    return float(((1 - weight) * i + weight * j).mean())


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """A share and Wilson's (1927) interval."""
    z = float(ndtri((1 + level) / 2))
    value = successes / n
    centre, reach = (value + z**2 / (2 * n)), z * (value * (1 - value) / n + z**2 / (4 * n**2)) ** 0.5
    return Interval(value, max(0.0, (centre - reach) / (1 + z**2 / n)), min(1.0, (centre + reach) / (1 + z**2 / n)))


def checked_labels(labels: ArrayLike, n: int, attribute: str, least: int = 1) -> Labels:
    """Labels as bool[n], from booleans, 1 / -1 (CelebA's) or 1 / 0.

    Raises:
        InputError: another length or other values, or fewer than `least` of a class.
    """
    y = np.asarray(labels)
    if y.shape != (n,):
        raise InputError(f"labels of {attribute}: shape {list(y.shape)} for {n} images")
    if y.dtype != np.bool_:
        values = np.unique(y).tolist()
        if not (set(values) <= {0, 1} or set(values) <= {-1, 1}):
            shown = ", ".join(map(str, values[:5]))
            raise InputError(f"labels of {attribute} must be 1 and -1, 1 and 0, or true and false; found {shown}")
        y = y == 1
    present = int(y.sum())
    if min(present, n - present) < least:
        raise InputError(
            f"labels of {attribute}: {present} images with it and {n - present} without; at least {least} of each are "
            "needed"
        )
    return y
