from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import auroc, detect


def test_area_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    real, other = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    wins = (real[:, None] > other).astype(float) + 0.5 * (real[:, None] == other)
    got = auroc(real, other)
    assert got.value == pytest.approx(wins.mean())
    want = wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 30
    assert got.standard_error == pytest.approx(want**0.5)
    assert auroc(-other, -real).value == pytest.approx(got.value)


def test_standard_error_is_the_spread() -> None:
    rng = np.random.default_rng(1)
    found = [auroc(rng.standard_normal(40) + 1, rng.standard_normal(60)) for _ in range(400)]
    spread = np.std([f.value for f in found], ddof=1)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(spread, rel=0.15)


def test_standard_error_of_pairs_is_the_spread_of_pairs() -> None:
    """Scores of damaged copies follow those of the originals: the area varies far less than that of two samples."""
    rng = np.random.default_rng(1)

    def pairs() -> tuple[np.ndarray, np.ndarray]:
        real = rng.standard_normal(300)
        return real, real - 0.3 + 0.2 * rng.standard_normal(300)

    found = [auroc(*pairs(), paired=True) for _ in range(300)]
    spread = np.std([a.value for a in found], ddof=1)
    assert np.mean([a.standard_error for a in found]) == pytest.approx(spread, rel=0.15)
    assert auroc(*pairs()).standard_error > 3 * spread
    with pytest.raises(InputError, match="as many other scores as real ones; found 4 and 3"):
        auroc(np.zeros(3), np.zeros(4), paired=True)


def test_scores_are_log_lds() -> None:
    """AUROC of densities by brute force in float64, for latents with an offset."""
    rng = np.random.default_rng(2)
    z, real = rng.standard_normal((80, 6)) + 2, rng.standard_normal((30, 6)) + 2
    others = {"far": 1.3 * rng.standard_normal((25, 6)) + 2, "near the mean": 0.3 * rng.standard_normal((20, 6)) + 2}
    found = detect(z, real, others, scales=(0.2, 0.5))
    assert [(f.group, f.scale, f.centred) for f in found] == [
        (group, scale, centred) for group in others for centred in (False, True) for scale in (0.2, 0.5)
    ]
    for f in found:
        norms = np.linalg.norm(z - z.mean(0) * f.centred, axis=1)
        assert f.sigma == pytest.approx(f.scale * norms.mean())

        def density(x: np.ndarray, sigma: float = f.sigma) -> np.ndarray:
            return logsumexp(-((x[:, None] - z) ** 2).sum(-1) / (2 * sigma**2), axis=1)

        want = (density(real)[:, None] > density(others[f.group])).mean()
        assert f.auroc.value == pytest.approx(want, abs=2e-3)
    # the trap: points near the mean pass as more real than real ones
    assert all(f.auroc.value < 0.3 for f in found if f.group == "near the mean")
    assert all(f.auroc.value > 0.6 for f in found if f.group == "far")


def test_bad_input() -> None:
    z = np.random.default_rng(3).standard_normal((20, 3))
    with pytest.raises(InputError, match="at least two other scores"):
        auroc([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="1 of 2 real scores are NaN"):
        auroc([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ConfigError, match="at least one group"):
        detect(z, z, {})
    with pytest.raises(ConfigError, match="positive"):
        detect(z, z, {"same": z}, scales=(-1.0,))
    with pytest.raises(InputError, match="NaN"):
        detect(z, z * np.nan, {"same": z})
