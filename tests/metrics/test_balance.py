from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import ProbeQuality, attribute_share, fit_probe, measure_probe
from ldsaug_ray.metrics.balance import wilson


def faces(n: int, seed: int, share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Features whose first two dimensions tell the attribute, with others that do not, of various scales."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < share
    x = rng.standard_normal((n, 6)) * [1, 1, 10, 0.1, 1, 1] + [0, 0, 50, 0, 0, 0]
    x[:, 0] += 1.5 * y
    x[:, 1] -= 1.0 * y
    return x.astype(np.float32), y


def test_probe_minimises_the_penalised_loss() -> None:
    """Against a general optimiser on the loss written out: balanced weights, standardised features."""
    x, y = faces(300, 0)
    probe = fit_probe(x, y, "Male")
    z = (x - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    sign = np.where(y, 1, -1)
    weight = np.where(y, 150 / y.sum(), 150 / (~y).sum())

    def loss(w: np.ndarray) -> float:
        return float(
            (weight * np.logaddexp(0, -sign * (z @ w[:6] + w[6]))).sum() + (w[:6] ** 2).sum() / 2 / probe.penalty
        )

    best = minimize(loss, np.zeros(7), method="BFGS").x
    np.testing.assert_allclose(probe.weights * x.std(0, dtype=float), best[:6], atol=2e-3)
    np.testing.assert_array_equal(probe.predict(x), z @ best[:6] + best[6] > 0)
    assert probe.attribute == "Male"


def test_quality_on_held_out_faces() -> None:
    probe = fit_probe(*faces(600, 1), "Male")
    x, y = faces(400, 2)
    found = probe.predict(x)
    quality = measure_probe(probe, x, y)
    assert quality.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(y, found))
    assert quality.sensitivity.value == pytest.approx((found & y).sum() / y.sum())
    assert quality.specificity.value == pytest.approx((~found & ~y).sum() / (~y).sum())
    assert (
        0.75 < quality.balanced_accuracy.low < quality.balanced_accuracy.value < quality.balanced_accuracy.high < 0.95
    )
    signed = measure_probe(probe, x, np.where(y, 1, -1))  # CelebA's own labels
    assert signed == quality == measure_probe(probe, x, y.astype(int))


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (97, 100), (50, 50)])
def test_wilson_against_scipy(successes: int, n: int) -> None:
    want = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    got = wilson(successes, n)
    assert (got.value, got.low, got.high) == pytest.approx((successes / n, want.low, want.high), abs=1e-12)


def test_balanced_accuracys_interval_covers() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1000):
        quality = ProbeQuality(60, 90, int(rng.binomial(60, 0.9)), int(rng.binomial(90, 0.8)))
        inside += quality.balanced_accuracy.low <= 0.85 <= quality.balanced_accuracy.high
    assert 0.93 <= inside / 1000 <= 0.98


def test_rogan_gladen() -> None:
    quality = ProbeQuality(1000, 1000, 900, 800)  # sensitivity 0.9, specificity 0.8
    found = np.arange(10_000) < 10_000 * (0.3 * 0.9 + 0.7 * 0.2)
    got = attribute_share(found, quality)
    assert got.apparent == pytest.approx(0.41)
    assert got.corrected == pytest.approx(0.3)
    assert got.low < 0.3 < got.high
    none = attribute_share(np.zeros(20, bool), quality)  # fewer than the false positives alone, by chance perhaps
    assert none.corrected == none.low == 0 < none.high < 0.12
    for verdicts, words in ((np.zeros(500, bool), "0.0% of 500 images, fewer"), (np.ones(500, bool), "100.0% .* more")):
        with pytest.raises(InputError, match=f"on {words} than its errors .* it errs otherwise on these images"):
            attribute_share(verdicts, quality)
    perfect = attribute_share(np.arange(100) < 25, ProbeQuality(10**9, 10**9, 10**9, 10**9))
    assert perfect.corrected == perfect.apparent == 0.25
    plain = binomtest(25, 100).proportion_ci(0.95, method="wilson")  # what the interval is close to without errors
    assert (perfect.low, perfect.high) == pytest.approx((plain.low, plain.high), abs=0.006)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.92])
@pytest.mark.parametrize(("n", "n_quality"), [(200, 60), (1000, 150)])
def test_interval_covers(share: float, n: int, n_quality: int) -> None:
    """95 % of experiments, in each of which the probe's quality is estimated from few labelled faces too."""
    rng = np.random.default_rng(4)
    se, sp, inside, naive, runs = 0.85, 0.9, 0, 0, 2000
    for _ in range(runs):
        quality = ProbeQuality(n_quality, n_quality, int(rng.binomial(n_quality, se)), int(rng.binomial(n_quality, sp)))
        positives = rng.binomial(n, share * se + (1 - share) * (1 - sp))
        got = attribute_share(np.arange(n) < positives, quality)
        inside += got.low <= share <= got.high
        naive += wilson(int(positives), n).low <= share <= wilson(int(positives), n).high
    assert inside / runs >= 0.935
    assert naive / runs < 0.935  # what is not corrected does not cover


def test_bad_input() -> None:
    x, y = faces(100, 6)
    with pytest.raises(InputError, match=r"labels of Male: 100 images with it and 0 without"):
        fit_probe(x, np.ones(100), "Male")
    with pytest.raises(InputError, match="at least 5 of each"):
        fit_probe(x, np.arange(100) < 4, "Male")
    with pytest.raises(InputError, match="must be 1 and -1, 1 and 0, or true and false; found 0, 1, 2"):
        fit_probe(x, np.arange(100) % 3, "Male")
    with pytest.raises(InputError, match=r"shape \[99\] for 100 images"):
        fit_probe(x, y[:99], "Male")
    probe = fit_probe(x, y, "Male")
    with pytest.raises(InputError, match="0 images with it and 100 without"):
        measure_probe(probe, x, np.zeros(100))
    with pytest.raises(InputError, match="knows 6 dimensions, found 5"):
        probe.predict(x[:, :5])
    with pytest.raises(InputError, match="no better than chance"):
        attribute_share(y, ProbeQuality(10, 10, 5, 5))
    with pytest.raises(InputError, match="at least one image"):
        attribute_share([], ProbeQuality(10, 10, 9, 9))
    with pytest.raises(ValueError, match="level"):
        attribute_share(y, ProbeQuality(10, 10, 9, 9), level=95)
