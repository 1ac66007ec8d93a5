from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from ldsaug_ray.config import Select
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import (
    HeldOut,
    Regime,
    candidates,
    interpolate,
    latent_norms,
    norms_from_mean,
    regime,
    score_pairs,
    sentences,
)
from ldsaug_ray.lds.diagnostics import spearman
from ldsaug_ray.selection import select

ALPHAS = [m / 10 for m in range(1, 10)]


def measured(scale: float) -> Regime:
    """A whole small run on Gaussian latents at sigma = scale x mean norm."""
    return measured_on(np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32), scale * 8.0)


def measured_on(z: np.ndarray, sigma: float) -> Regime:
    """A run of 100 pairs on these latents."""
    c = candidates(len(z), ALPHAS, 0, 100 * 9, 0)
    scores = score_pairs(z, np.stack([c.i, c.j], axis=1)[::9], ALPHAS, [sigma])
    flat = {name: getattr(scores, name).ravel() for name in vars(scores)}
    kept = np.isin(c.id, select([(c.id, flat["log_lds"])], len(c), Select()).ids)
    norms = norms_from_mean(z, c)
    return regime(**flat, alpha=c.alpha, selected=kept, distance_to_mean=norms, train_distance_to_mean=latent_norms(z))


def test_norms_without_the_vectors() -> None:
    z = (np.random.default_rng(1).standard_normal((50, 7)) * 3 + 20).astype(np.float32)
    c = candidates(50, ALPHAS, 5, 400, 2)
    mean = z.mean(0, dtype=np.float64)
    want = np.linalg.norm(interpolate(z, c.i, c.j, c.alpha) - mean, axis=1)
    np.testing.assert_allclose(norms_from_mean(z, c), want, rtol=1e-5)
    np.testing.assert_allclose(latent_norms(z), np.linalg.norm(z - mean, axis=1), rtol=1e-12)
    equal = np.full((50, 3), 0.1, np.float32)
    np.testing.assert_allclose(norms_from_mean(equal, c), 0, atol=1e-7)


def test_rank_correlation() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 200).astype(float), rng.standard_normal(200)
    assert spearman(a, b + a) == pytest.approx(spearmanr(a, b + a).statistic)
    assert spearman(a, np.ones(200)) is None


def test_small_bandwidth_is_a_copy_of_the_parents() -> None:
    r = measured(0.1)
    assert r.median_parent_share > 0.95
    assert r.correlation_with_middle is not None
    assert r.correlation_with_middle < -0.8
    assert r.extreme_alphas == (0.1, 0.9)
    assert r.extreme_share == pytest.approx(2 / 9)
    assert r.extreme_share_selected is not None
    assert r.extreme_share_selected > 0.9
    assert r.alpha_share == pytest.approx([1 / 9] * 9)
    assert r.alpha_share_selected is not None
    assert sum(r.alpha_share_selected) == pytest.approx(1)
    text = "\n".join(sentences(r))
    assert "'dense' means 'almost a copy of a training image'; consider select.exclude_parents=true" in text
    assert "prefers candidates next to a parent" in text
    assert "the bandwidth is narrow" in text
    assert "other candidates would be kept" in text


def test_large_bandwidth_ranks_by_distance_to_the_mean() -> None:
    r = measured(2.0)
    assert r.median_parent_share < 0.05
    assert r.correlation_with_mean is not None
    assert r.correlation_with_mean > 0.95
    assert r.overlap_without_parents is not None
    assert r.overlap_without_parents > 0.9
    assert r.norm_shrinkage is not None
    assert 0.7 < r.norm_shrinkage < 0.9
    text = "\n".join(sentences(r))
    assert "measures the other training latents, as intended" in text
    assert "it prefers average images" in text
    assert "blurs all structure" in text
    assert "much the same candidates would be kept" in text
    assert "interpolation shrinks the norm" in text
    assert "prefers midpoints" in text


def hand_made(**change: object) -> Regime:
    arrays: dict = {
        "log_lds": np.log([0.1, 0.2, 0.3, 0.4]),
        "log_lds_excluding_parents": np.log([0.4, 0.3, 0.2, 0.1]),
        "parent_share": np.array([0.1, 0.2, 0.3, 0.4]),
        "effective_neighbours": np.array([3.0, 4, 5, 6]),
        "alpha": np.array([0.25, 0.5, 0.75, 0.25]),
        "selected": np.array([False, False, True, True]),
        "distance_to_mean": np.array([1.0, 2, 1, 2]),
        "train_distance_to_mean": np.full(10, 2.0),
    }
    return regime(**(arrays | change))


def test_numbers_by_hand() -> None:
    r = hand_made()
    assert (r.n_candidates, r.n_selected, r.n_latents) == (4, 2, 10)
    assert (r.median_parent_share, r.median_parent_share_selected) == pytest.approx((0.25, 0.35))
    assert r.median_effective_neighbours == 4.5
    assert r.max_log_lds == pytest.approx(np.log(0.4))
    assert r.alphas == (0.25, 0.5, 0.75)
    assert r.alpha_share == (0.5, 0.25, 0.25)
    assert r.alpha_share_selected == (0.5, 0.0, 0.5)
    assert (r.extreme_share, r.extreme_share_selected) == (0.75, 1.0)
    assert r.overlap_without_parents == 0.0
    assert r.norm_shrinkage == 0.75
    assert len(sentences(r)) == 7
    assert all(any(ch.isdigit() for ch in s) for s in sentences(r))


def test_a_band_of_densities_is_not_compared_with_a_ranking() -> None:
    assert hand_made(selected=np.array([False, True, True, False])).overlap_without_parents is None
    assert hand_made(selected=np.array([True, False, False, False])).overlap_without_parents == 1.0  # without parents


def test_beside_held_out_real_latents() -> None:
    assert hand_made().denser_than_most is None
    real = HeldOut.of(np.log(np.linspace(0.05, 0.26, 1001)))
    assert (real.count, real.median) == (1001, pytest.approx(np.log(0.155)))
    r = hand_made(held_out=real)
    assert (r.denser_than_median, r.denser_than_most, r.denser_than_most_without_parents) == (0.75, 0.5, 0.5)
    assert "50% of the candidates are denser than 97.5% of held-out real latents" in sentences(r)[-2]
    assert "denser is not more real" in sentences(r)[-2]
    thin = sentences(hand_made(held_out=HeldOut(9, -0.5, -0.1, 0.0)))[-2]
    assert "0% denser than their median" in thin
    assert "consider select.tau=auto" in thin
    usual = hand_made(held_out=HeldOut(9, -9.0, -1.7, -0.1))
    assert sentences(usual)[-2].endswith("where real latents would be 2.5% and 50%.")


def test_latents_that_coincide_are_the_only_finding() -> None:
    """LDS of a point that all latents share is 1; where they lie sigma / 20 apart it is not. What else is measured
    there is rounding, and its advice (a smaller sigma, select.tau) of no use."""
    point = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    for apart, coincide in ((0.0, True), (0.05, False)):
        z = point + np.float32(apart) * np.random.default_rng(1).standard_normal((44, 6)).astype(np.float32)
        told = sentences(measured_on(z, 1.0))
        finding = "All 44 training latents coincide, and LDS is 1 for every candidate"
        assert [finding in s for s in told] == ([True] if coincide else [False] * 7)
        assert all("data.source" in s for s in told) == coincide


def test_nothing_selected_and_constants_are_undefined_not_wrong() -> None:
    r = hand_made(selected=np.zeros(4, bool), alpha=np.full(4, 0.5), train_distance_to_mean=np.zeros(3))
    assert r.overlap_without_parents is None
    assert r.alpha_share_selected is None
    assert r.correlation_with_middle is None
    assert r.norm_shrinkage is None
    assert len(sentences(r)) == 4
    excluded = hand_made(log_lds_excluding_parents=np.full(4, -np.inf))
    assert excluded.overlap_without_parents == 0.0
    with pytest.raises(InputError, match="equally many"):
        hand_made(alpha=np.ones(3))
    assert all(np.isfinite(value) for value in vars(hand_made()).values() if isinstance(value, float))
