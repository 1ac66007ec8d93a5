"""Priors against closed forms, scipy and scikit-learn; each sample by itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity as SklearnDensity

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Sampling
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models.priors import (
    PRIORS,
    REGULARISED,
    Draws,
    Fitted,
    Mixture,
    Normal,
    Prior,
    facts_of,
    fit_mixture,
    kernel_density,
    noise,
    read_fitted,
    resampled_rows,
    write_fitted,
)
from ldsaug_ray.models.priors.kde import KernelDensity

RNG = np.random.default_rng(0)
BLOBS = np.concatenate([RNG.normal(m, s, (400, 3)) for m, s in ((-5, 0.5), (0, 1.0), (6, 2.0))]).astype(np.float32)


Density = Normal | Mixture | KernelDensity


def priors() -> list[Density]:
    full, diag = (fit_mixture(BLOBS, 3, kind, 1) for kind in ("full", "diag"))
    return [Normal(3), Normal(6), full, diag, kernel_density(BLOBS, 0.3), kernel_density(BLOBS, 0.0)]


@pytest.mark.parametrize("prior", priors())
def test_a_sample_depends_on_its_number_and_the_seed_alone(prior: Density) -> None:
    whole = prior.sample(0, 50, 9)
    assert (whole.dtype, whole.shape) == (np.float32, (50, prior.dim))
    cuts = [0, 1, 2, 7, 31, 50]
    parts = [prior.sample(a, b, 9) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (prior.sample(0, 50, 10) != whole).any(axis=1).mean() > 0.9
    assert len(np.unique(whole, axis=0)) > 30
    assert prior.sample(5, 5, 9).shape == (0, prior.dim)


def test_normal_is_normal_and_independent() -> None:
    z = Normal(5).sample(0, 20_000, 3).astype(np.float64)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(z.T) - np.eye(5)).max() < 0.03
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 0.03
    assert stats.kstest(np.square(z).sum(1), stats.chi2(5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_mixture_is_sklearns_and_its_samples_have_its_moments(kind: str) -> None:
    fitted = fit_mixture(BLOBS, 3, kind, 1)  # type: ignore[arg-type]
    z = BLOBS.astype(np.float64)
    spread = np.square(z - z.mean(0)).mean()
    peer = GaussianMixture(3, covariance_type=kind, reg_covar=REGULARISED * spread, random_state=1, tol=1e-6).fit(z)
    order, of_peer = np.argsort(fitted.means[:, 0]), np.argsort(peer.means_[:, 0])
    np.testing.assert_allclose(fitted.means[order], peer.means_[of_peer], atol=0.05)
    np.testing.assert_allclose(fitted.weights[order], peer.weights_[of_peer], atol=0.01)
    assert fitted.converged
    drawn = fitted.sample(0, 40_000, 5).astype(np.float64)
    np.testing.assert_allclose(drawn.mean(0), z.mean(0), atol=0.1)
    # EM with regularisation: the mixture's covariance is the data's (full), or has its diagonal
    want = np.cov(z.T) + REGULARISED * spread * np.eye(3)
    found = np.cov(drawn.T)
    np.testing.assert_allclose(np.diag(found), np.diag(want), rtol=0.05)
    assert peer.score(drawn) == pytest.approx(peer.score(peer.sample(40_000)[0]), abs=0.05)


def test_one_gaussian_in_closed_form() -> None:
    mix = RNG.normal(size=(4, 4))
    z = RNG.normal(size=(3000, 4)) @ mix + 100
    fitted = fit_mixture(z, 1, "full", 0)
    covariance = fitted.factors[0] @ fitted.factors[0].T
    spread = np.square(z - z.mean(0)).mean()
    np.testing.assert_allclose(covariance, np.cov(z.T, bias=True) + REGULARISED * spread * np.eye(4), rtol=1e-9)
    np.testing.assert_allclose(fitted.means[0], z.mean(0), rtol=1e-12)
    drawn = fitted.sample(0, 50_000, 0).astype(np.float64)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05 * np.diag(covariance).max())


def test_parameters_never_exceed_the_data_by_default() -> None:
    z = RNG.normal(size=(60, 8))
    for components in (1, 5, 20):
        fitted = fit_mixture(z, components, "auto", 0)
        full = components * (1 + 8 + 36) - 1 <= 60 * 8
        assert fitted.covariance == ("full" if full else "diag")
        assert np.isfinite(fitted.sample(0, 100, 0)).all()
    assert fit_mixture(z, 20, "full", 0).covariance == "full"  # regularised: possible where it is asked for


def test_a_mixture_is_the_same_again_and_from_its_file(tmp_path: Path) -> None:
    first = fit_mixture(BLOBS, 3, "full", 4)
    fitted = PRIORS.get("mixture").fit(BLOBS, Sampling(components=3, covariance="full"), 4)
    location = Location.of(tmp_path / "prior.safetensors")
    write_fitted(location, fitted)
    assert facts_of(fitted) == {"components": 3, "covariance": "full", "converged": True}
    none = np.empty((0, 3), np.float32)
    for again in (fitted, read_fitted(location, facts_of(fitted))):
        np.testing.assert_array_equal(Draws("mixture", again, none).sample(0, 20, 0), first.sample(0, 20, 0))
    location.write_bytes(location.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"prior\.safetensors: not a prior"):
        read_fitted(location, {})
    write_fitted(location, {"means": np.array([np.nan])})
    with pytest.raises(InputError, match=r"prior\.safetensors: means is not finite"):
        read_fitted(location, {})


def test_what_each_prior_reads_and_draws() -> None:
    none = np.empty((0, 3), np.float32)
    np.testing.assert_array_equal(Draws("normal", {}, none).sample(2, 9, 5), Normal(3).sample(2, 9, 5))
    kde, near_a = PRIORS.get("kde"), np.concatenate([BLOBS, BLOBS + np.float32(1e-3)])
    fitted = kde.fit(BLOBS, Sampling(sigma=0.3), 0)
    assert fitted == {"sigma": 0.3}
    np.testing.assert_array_equal(
        Draws("kde", fitted, BLOBS).sample(0, 9, 5), kernel_density(BLOBS, 0.3).sample(0, 9, 5)
    )
    alone = kde.fit(BLOBS, Sampling(), 0)
    assert kde.fit(near_a, Sampling(), 0, of_a=len(BLOBS)) == alone  # A's latents would shrink it
    with pytest.raises(InputError, match=r"sample\.sigma: leave_one_out finds none for these 5 latents"):
        kde.fit(np.ones((5, 2), np.float32), Sampling(), 0)
    text = "44 latents and 30 of A"
    assert PRIORS.get("normal").sentence({}, text) == "N(0, I)"
    assert kde.sentence({"sigma": 0.25}, text) == f"the kernel density of {text}, sigma = 0.25"
    facts = {"components": 3, "covariance": "full", "converged": False}
    told = f"a mixture of 3 Gaussians (full covariance, not converged) fitted to {text}"
    assert PRIORS.get("mixture").sentence(facts, text) == told


class Own(Prior):
    def draw(self, fitted: Fitted, latents: np.ndarray, start: int, stop: int, seed: int) -> np.ndarray:
        z = noise(3, start, stop, seed)[1]
        bad = {
            "batch": lambda: z - z.mean(axis=0),
            "shape": lambda: z[:, :2],
            "nan": lambda: z * np.nan,
            "broken": lambda: z[99],
            "good": lambda: 2 * z,
        }
        return bad[fitted["kind"]]()

    def sentence(self, facts: Fitted, latents: str) -> str:
        return "mine"


def test_ones_own_prior() -> None:
    path, none = f"{__name__}:Own", np.empty((0, 3), np.float32)
    good = Draws(path, {"kind": "good"}, none)
    good.check(0)
    np.testing.assert_array_equal(good.sample(3, 9, 1), np.float32(2 * noise(3, 3, 9, 1)[1]))
    for kind, why in {
        "batch": "a sample depends on those that are drawn with it",
        "shape": r"drew float64\[3, 2\]; needed is float\[3, 3\]",
        "nan": "drew latents that are NaN or infinite",
        "broken": "failed .IndexError",
    }.items():
        with pytest.raises(InputError, match=rf"sample\.prior {path}:? ?{why}"):
            Draws(path, {"kind": kind}, none).check(0)
    assert PRIORS.get(path).settings == ()


def test_a_kernel_density_is_the_oracles() -> None:
    points = np.sort(np.random.default_rng(2).gamma(2.0, size=(200, 1)), axis=0)
    drawn = kernel_density(points, 0.25).sample(0, 20_000, 1).astype(np.float64)
    assert stats.kstest(drawn[:, 0], lambda x: stats.norm.cdf((np.c_[x] - points.T) / 0.25).mean(1)).pvalue > 1e-3
    peer = SklearnDensity(bandwidth=0.3).fit(BLOBS)
    ours = kernel_density(BLOBS, 0.3).sample(0, 4000, 1)
    theirs = peer.sample(4000, random_state=0)
    assert stats.ks_2samp(peer.score_samples(ours), peer.score_samples(theirs)).pvalue > 1e-3
    counts = np.bincount(np.searchsorted(points[:, 0], kernel_density(points, 0.0).sample(0, 20_000, 3)[:, 0] - 1e-6))
    assert stats.chisquare(counts[:200]).pvalue > 1e-3


def test_resampled_rows_come_as_often_as_they_weigh() -> None:
    weights = np.array([0.0, 1.0, 2.5, 0.0, 0.5, 6.0])
    want = 6 * weights / weights.sum()
    mean = np.zeros(6)
    for seed in range(3000):
        rows = resampled_rows(weights, seed)
        assert len(rows) == 6
        counts = np.bincount(rows, minlength=6)
        assert ((counts >= np.floor(want)) & (counts <= np.ceil(want))).all()
        mean += counts / 3000
    np.testing.assert_allclose(mean, want, atol=0.05)
    assert resampled_rows(np.ones(7), 0).tolist() == list(range(7))
    assert resampled_rows(np.empty(0), 0).tolist() == []


def test_bad_input() -> None:
    z = np.zeros((5, 2))
    with pytest.raises(InputError, match=r"sample\.components = 9 is more than the 5 latents"):
        fit_mixture(RNG.normal(size=(5, 2)), 9, "auto", 0)
    with pytest.raises(InputError, match="more than the 2 different latents"):
        fit_mixture(np.repeat(np.eye(2), 5, axis=0), 3, "auto", 0)
    with pytest.raises(InputError, match="all 5 latents are equal"):
        fit_mixture(z, 1, "auto", 0)
    with pytest.raises(ConfigError, match="at least 1"):
        fit_mixture(z, 0, "auto", 0)
    with pytest.raises(InputError, match="NaN"):
        kernel_density(np.full((3, 2), np.nan), 1.0)
    for sigma in (-1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match=r"sample\.sigma"):
            kernel_density(z, sigma)
    for start, stop, seed in ((3, 2, 0), (-1, 2, 0), (0, 1, -1)):
        with pytest.raises(ConfigError):
            Normal(2).sample(start, stop, seed)
    for weights in ([-1.0, 2.0], [np.nan], [0.0, 0.0]):
        with pytest.raises(InputError, match="weights"):
            resampled_rows(weights, 0)
