"""LatentSampler: imbalanced-learn's own checks, a pipeline, and what it adds, against sums of our own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils import estimator_checks
from scipy.sparse import csr_matrix
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from ldsaug_ray import LatentSampler
from ldsaug_ray.errors import ConfigError, ImpossibleError

CHECKS = list(estimator_checks._yield_all_checks(LatentSampler()))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = np.repeat(["big", "middle", "small"], [60, 25, 15])
    return rng.normal(size=(100, 4)) + np.unique(y, return_inverse=True)[1][:, None], y


@pytest.mark.filterwarnings("ignore")  # their own data frames warn
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: getattr(check, "__name__", None) or check.func.__name__)
def test_checks_of_imbalanced_learn(check):
    check("LatentSampler", clone(LatentSampler(sigma=1.0, random_state=0)))


def test_new_rows_are_the_densest_between_members_of_their_class(data):
    X, y = data
    sampler = LatentSampler(sigma=0.9, random_state=3)
    new, labels = sampler.fit_resample(X, y)
    assert Counter(labels) == {"big": 60, "middle": 60, "small": 60}
    assert sampler.sampling_strategy_ == {"middle": 35, "small": 45}
    assert np.array_equal(new[:100], X)
    assert np.array_equal(labels[:100], y)
    i, j = sampler.parents_.T
    assert np.array_equal(y[i], labels[100:])
    assert np.array_equal(y[j], labels[100:])
    alpha = sampler.alpha_[:, None]
    np.testing.assert_allclose(new[100:], (1 - alpha) * X[i] + alpha * X[j], atol=1e-6)
    members = X[y == "small"]
    small = new[100:][labels[100:] == "small"]
    logs = logsumexp(-((small[:, None] - members[None]) ** 2).sum(-1) / (2 * 0.9**2), axis=1) - np.log(len(members))
    np.testing.assert_allclose(sampler.log_lds_[labels[100:] == "small"], logs, atol=1e-4)
    # of 5 x as many candidates, so denser than all of them are
    unfiltered = LatentSampler(sigma=0.9, keep=1, random_state=3)
    unfiltered.fit_resample(X, y)
    assert np.median(sampler.log_lds_) > np.median(unfiltered.log_lds_)


def test_targets_and_other_settings(data):
    X, y = data
    strategy = {"small": 20, "middle": 40}
    sampler = LatentSampler(
        sampling_strategy=strategy, random_state=0, settings={"alphas": (0.5,), "exclude_parents": True}
    )
    new, labels = sampler.fit_resample(X.astype(np.float32), y)
    assert Counter(labels) == {"big": 60, **strategy}
    assert set(sampler.alpha_) == {0.5}
    assert new.dtype == np.float32
    sparse, again = sampler.fit_resample(csr_matrix(X), y)
    np.testing.assert_allclose(sparse.toarray(), new, atol=1e-6)
    assert np.array_equal(again, labels)


def test_in_a_pipeline(data):
    X, y = data
    pipeline = make_pipeline(LatentSampler(random_state=0), LogisticRegression())
    assert cross_val_score(pipeline, X, y, scoring="balanced_accuracy", cv=3).mean() > 0.5


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"keep": 0.0}, ValueError, "'keep' parameter"),
        ({"sigma": "nrom"}, ConfigError, "class middle .*sigma = 'nrom'"),
        ({"settings": {"colour": 1}}, ConfigError, "unknown argument 'colour'"),
        ({"settings": {"n": 50}}, ConfigError, "settings: n: LatentSampler gives it itself"),
        ({"settings": {"tau": 0.999}}, ImpossibleError, "tau = 0.999 keeps none"),
    ],
)
def test_wrong_settings_are_told(data, settings, error, words):
    with pytest.raises(error, match=words):
        LatentSampler(**settings).fit_resample(*data)


def test_a_class_of_one_has_no_pairs(data):
    X, y = data
    with pytest.raises(ValueError, match="class rare has 1 member"):
        LatentSampler().fit_resample(X, np.where(np.arange(100) == 99, "rare", y))
