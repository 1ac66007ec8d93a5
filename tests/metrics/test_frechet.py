from __future__ import annotations

import numpy as np
import pytest
import torch
from cleanfid.fid import fid_from_feats
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import FeatureStatistics, frechet_distance, frechet_from_statistics


def sets(n: int = 400, m: int = 300, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features with an offset, as networks give them."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d)) / d**0.5
    a = rng.standard_normal((n, d)) @ mix + 2
    b = rng.standard_normal((m, d)) @ (mix + 0.1 * rng.standard_normal((d, d))) + 2.1
    return a.astype(np.float32), b.astype(np.float32)


def test_equals_clean_fid_and_torch_fidelity() -> None:
    a, b = sets()
    got = frechet_distance(a, b)
    double = a.astype(np.float64), b.astype(np.float64)
    with pytest.warns(DeprecationWarning, match="disp"):  # what scipy says of clean-fid's call
        assert got == pytest.approx(fid_from_feats(*double), rel=1e-9)
    theirs = [fid_features_to_statistics(torch.from_numpy(x)) for x in double]
    want = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert got == pytest.approx(want, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(got, rel=1e-10)


def test_closed_forms() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 6)) * [1, 2, 3, 4, 5, 6]
    shift = np.arange(6.0)
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift)
    # a multiple has the root of the product of variances as overlap: (s - 1)^2 Tr
    centred = x - x.mean(0)
    want = (3 - 1) ** 2 * np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(centred, 3 * centred) == pytest.approx(want)
    one, two = rng.standard_normal((50, 1)), 4 * rng.standard_normal((60, 1)) + 3
    want = (one.mean() - two.mean()) ** 2 + (one.std(ddof=1) - two.std(ddof=1)) ** 2
    assert frechet_distance(one, two) == pytest.approx(want)


@pytest.mark.parametrize(("n", "d"), [(500, 20), (30, 100)])
def test_a_set_against_itself_is_zero(n: int, d: int) -> None:
    x = np.random.default_rng(2).standard_normal((n, d)).astype(np.float32) * 5 + 100
    assert 0 <= frechet_distance(x, x) < 1e-9 * float(x.var(0).sum())
    assert 0 <= frechet_distance(x, x[::-1]) < 1e-9 * float(x.var(0).sum())


def test_singular_covariances() -> None:
    """Fewer images than dimensions: against the nuclear norm of the centred products, which needs no covariance."""
    a, b = sets(40, 30, 64)
    x, y = (z.astype(np.float64) - z.mean(0, dtype=np.float64) for z in (a, b))
    overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum() / (39 * 29) ** 0.5
    gap = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    want = gap @ gap + (x**2).sum() / 39 + (y**2).sum() / 29 - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9)
    # features that never vary, in one set and in both
    assert frechet_distance(np.ones((5, 3)), np.ones((5, 3))) == 0
    assert frechet_distance(a, np.ones((5, 64))) == pytest.approx(
        ((a.mean(0, dtype=float) - 1) ** 2).sum() + a.var(0, ddof=1, dtype=float).sum()
    )


def test_statistics_whole_and_merged() -> None:
    a, _ = sets()
    a += 1000  # an offset that squares in float32 would not survive
    exact = a.astype(np.float64)
    cuts = np.split(a, [1, 2, 90, 91, 300])
    for got in (
        FeatureStatistics.of(a),
        FeatureStatistics.merge([FeatureStatistics.of(c) for c in cuts]),
    ):
        assert got.n == 400
        np.testing.assert_allclose(got.mean, exact.mean(0), rtol=1e-13)
        np.testing.assert_allclose(got.covariance, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-11)
    parts = [FeatureStatistics.of(c) for c in cuts]
    twice = [FeatureStatistics.merge(parts).scatter.tobytes() for _ in range(2)]
    assert twice[0] == twice[1]
    assert parts[0].n == 1  # merging leaves its parts as they were
    np.testing.assert_array_equal(parts[0].scatter, 0)


def test_statistics_are_blocked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = sets()
    whole = FeatureStatistics.of(a)
    monkeypatch.setattr("ldsaug_ray.metrics.frechet.BLOCK_BYTES", 8 * 24 * 7)
    np.testing.assert_allclose(FeatureStatistics.of(a).scatter, whole.scatter, rtol=1e-12, atol=1e-10)


def test_bias_is_named_where_images_are_few() -> None:
    a, b = (FeatureStatistics.of(x) for x in sets(24, 300, 24))
    (note,) = frechet_from_statistics(a, b).notes
    assert "24 and 300 images in 24 dimensions" in note
    assert "biased upwards" in note
    assert frechet_from_statistics(*(FeatureStatistics.of(x) for x in sets(25, 300, 24))).notes == ()


def test_bad_input() -> None:
    a, b = sets()
    with pytest.raises(InputError, match="24 and of 23 dimensions"):
        frechet_distance(a, b[:, :23])
    a[7, 3] = np.nan
    with pytest.raises(InputError, match=r"features_a: 1 of 400 rows hold NaN or infinity \(first: row 7\)"):
        frechet_distance(a, b)
    with pytest.raises(InputError, match=r"found shape \[300\]"):
        frechet_distance(b[:, 0], b)
    with pytest.raises(InputError, match="real numbers; found complex"):
        frechet_distance(b.astype(complex), b)
    with pytest.raises(InputError, match="at least 2 images"):
        frechet_distance(b, b[:1])
    with pytest.raises(InputError, match="features_b: 0 images"):
        frechet_distance(b, b[:0])
    with pytest.raises(InputError, match="no features"):
        FeatureStatistics.merge([])
    with pytest.raises(InputError, match="24 and 3 dimensions"):
        FeatureStatistics.merge([FeatureStatistics.of(b), FeatureStatistics.of(b[:, :3])])


def test_root_needs_no_sqrtm() -> None:
    a, b = sets(2000, 2000, 8)
    sa, sb = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    gap = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    want = gap @ gap + np.trace(sa + sb - 2 * sqrtm(sa @ sb).real)
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9)
