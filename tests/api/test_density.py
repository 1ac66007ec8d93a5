"""LatentDensity against scikit-learn's estimator checks, its KernelDensity, SciPy, and sums of our own in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import check_estimator

from ldsaug_ray import LatentDensity
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.lds import sigma_from_norm

SETTINGS = [{}, {"sigma": 0.7, "normalized": True}, {"sigma": "scott", "exclude_self": True}]


@pytest.fixture
def z():
    return np.random.default_rng(0).normal(size=(80, 3)) * [1, 2, 0.5] + 3


def brute(z, x, sigma, weight, out=None):
    """log of the weighted mean, by direct differences; out: the latent that each point does not count."""
    logs = -((x[:, None] - z[None]) ** 2).sum(-1) / (2 * sigma**2)
    w = np.tile(np.asarray(weight, float), (len(x), 1))
    if out is not None:
        w[np.arange(len(x)), out] = 0
    return logsumexp(logs, axis=1, b=w) - np.log(w.sum(1))


@pytest.mark.parametrize("settings", SETTINGS)
def test_checks_of_scikit_learn(settings):
    # scipy's switch for other arrays is set, or not, when it is imported: the one check that is skipped
    found = check_estimator(LatentDensity(**settings), on_skip=None)
    assert {r["check_name"] for r in found if r["status"] != "passed"} <= {"check_array_api_input"}


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
def test_it_is_kernel_density_where_normalized(z, sigma):
    weight = np.random.default_rng(1).uniform(0, 3, len(z))
    x = z[:20] + 0.3
    for w in (None, weight):
        peer = KernelDensity(bandwidth=sigma).fit(z, sample_weight=w)
        ours = LatentDensity(sigma, normalized=True).fit(z, sample_weight=w)
        np.testing.assert_allclose(ours.score_samples(x), peer.score_samples(x), rtol=0, atol=1e-9)
        assert ours.score(x) == pytest.approx(peer.score(x))


def test_log_lds_and_weights_are_the_sums(z):
    weight = np.random.default_rng(1).integers(0, 4, len(z))
    x = z[::3] - 0.1
    got = LatentDensity().fit(z, sample_weight=weight)
    assert got.sigma_ == sigma_from_norm(z[weight > 0], 0.2)
    np.testing.assert_allclose(got.score_samples(x), brute(z, x, got.sigma_, weight), atol=1e-9)
    # a weight is so many copies
    many = LatentDensity(sigma=got.sigma_).fit(np.repeat(z, weight, axis=0))
    np.testing.assert_allclose(got.score_samples(x), many.score_samples(x), atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out(z, weighted):
    weight = np.random.default_rng(1).uniform(1e-6, 3, len(z)) if weighted else np.ones(len(z))
    got = LatentDensity(0.3, exclude_self=True).fit(z, sample_weight=weight if weighted else None)
    rows = np.arange(len(z))[::-1]
    np.testing.assert_allclose(got.score_samples(z[rows]), brute(z, z[rows], 0.3, weight, rows), atol=1e-7)
    other = z[:5] + 1  # no latents: all count
    np.testing.assert_allclose(got.score_samples(other), brute(z, other, 0.3, weight), atol=1e-9)


def test_of_equal_latents_one_is_left_out():
    z = np.array([[0.0], [0.0], [1.0]])
    got = LatentDensity(1.0, exclude_self=True).fit(z).score_samples([[-0.0]])
    np.testing.assert_allclose(got, np.log((1 + np.exp(-0.5)) / 2))
    with pytest.raises(InputError, match="exclude_self leaves no latent"):
        LatentDensity(1.0, exclude_self=True).fit(z[:1]).score_samples(z[:1])


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_normal_references_are_scipys_and_scikit_learns(rule):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 7, 50)
    assert LatentDensity(rule).fit(x[:, None]).sigma_ == pytest.approx(gaussian_kde(x, rule).factor * x.std(ddof=1))
    z = rng.normal(size=(60, 5))
    z = (z - z.mean(0)) / z.std(0, ddof=1)
    assert LatentDensity(rule).fit(z).sigma_ == pytest.approx(KernelDensity(bandwidth=rule).fit(z).bandwidth_)


def test_rules_of_the_settings_and_a_search(z):
    assert LatentDensity({"rule": "nearest_neighbour", "scale": 2}).fit(z).sigma_ == pytest.approx(
        2 * LatentDensity("nearest_neighbour").fit(z).sigma_
    )
    grid = {"sigma": [0.01, 0.5, 30.0]}
    found = GridSearchCV(LatentDensity(normalized=True), grid).fit(z)
    peer = GridSearchCV(KernelDensity(), {"bandwidth": grid["sigma"]}).fit(z)
    assert found.best_params_["sigma"] == peer.best_params_["bandwidth"] == 0.5
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], peer.cv_results_["mean_test_score"])


def test_float32_is_computed_in_float32(z):
    single = LatentDensity(0.5).fit(z.astype(np.float32))
    double = LatentDensity(0.5).fit(z)
    np.testing.assert_allclose(single.score_samples(z), double.score_samples(z), atol=1e-4)


def test_draws_have_the_moments_of_the_density(z):
    weight = np.where(np.arange(len(z)) < 40, 1.0, 3.0)
    drawn = LatentDensity(0.8).fit(z, sample_weight=weight).sample(40_000, random_state=0)
    mean = np.average(z, axis=0, weights=weight)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)
    var = np.average((z - mean) ** 2, axis=0, weights=weight) + 0.64
    np.testing.assert_allclose(drawn.var(0), var, rtol=0.05)


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        ("norm/0", "above 0 after norm/"),
        ("nrom", "unknown sigma rule"),
        (-1, "sigma = -1: must be at least 1e-100;"),
        ({"rule": "fixed"}, "value is needed"),
    ],
)
def test_a_wrong_sigma_is_told(z, sigma, words):
    with pytest.raises(ConfigError, match=words) as told:
        LatentDensity(sigma).fit(z)
    assert "sigma" in str(told.value)


def test_other_bad_input(z):
    with pytest.raises(ValueError, match="at least one non-zero"):
        LatentDensity().fit(z, sample_weight=np.zeros(len(z)))
    with pytest.raises(ValueError, match="1 sample"):
        LatentDensity("scott").fit(z[:1])
    with pytest.raises(ImpossibleError, match="do not vary"):
        LatentDensity("scott").fit(np.ones((5, 2)))
