from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.spatial.distance import cdist

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import manifold, prdc
from ldsaug_ray.metrics.nearest import nearest_neighbours

MEASURES = ("precision", "recall", "density", "coverage")


def assert_as_the_package(real: np.ndarray, fake: np.ndarray, k: int) -> None:
    """Equal to `prdc` on the same features in float64: given float32, it compares distances rounded to float32."""
    want = compute_prdc(real.astype(np.float64), fake.astype(np.float64), k)
    got = prdc(real, fake, k)
    for name in MEASURES:
        assert getattr(got, name) == pytest.approx(want[name], abs=1e-6), name


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(300, 250, 8), (90, 400, 200), (7, 7, 3), (300, 7, 1)])
def test_equals_the_package(n: int, m: int, d: int, k: int) -> None:
    rng = np.random.default_rng(n + d)
    real = rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d) + 5
    fake = rng.standard_normal((m, d)) * np.geomspace(1, 0.12, d) * 0.9 + 5
    assert_as_the_package(real.astype(np.float32), fake.astype(np.float32), k)
    assert_as_the_package(real, fake, k)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_package_where_distances_tie(seed: int) -> None:
    """Small whole numbers: copies within and between the sets, points on spheres; the package's sums are exact too."""
    rng = np.random.default_rng(seed)
    real, fake = rng.integers(0, 3, (150, 5)), rng.integers(0, 3, (120, 5))
    assert_as_the_package(real.astype(np.float32), fake.astype(np.float32), 5)
    real[:20] = real[0]  # more copies than k: radius 0
    assert_as_the_package(real.astype(np.float32), fake.astype(np.float32), 5)
    assert_as_the_package(real.astype(np.float32), real[::-1].astype(np.float32), 5)


def test_copies_of_reals_lie_on_spheres() -> None:
    """Fakes that are reals, with k = 1: each lies exactly on the sphere of those whose nearest neighbour it is."""
    real = np.random.default_rng(0).standard_normal((200, 33)).astype(np.float32)
    got = prdc(real, real.copy(), 1)
    # inside a ball of radius "distance to the nearest" is only its own centre
    np.testing.assert_array_equal(got.real_balls, 1)
    assert (got.precision, got.density, got.coverage) == (1, 1, 1)


def test_pairs_within_float32_of_a_radius_are_decided_in_float64() -> None:
    """Points on a circle of float64 radii that differ by less than float32 can tell, far from the origin."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = 1 + 1e-9 * np.random.default_rng(1).standard_normal(40)
    centre = np.array([[1000.0, 1000.0]])
    ring = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    real, fake = np.concatenate([centre, ring[::2]]), ring[1::2]
    d, own = cdist(real, fake), np.sort(cdist(real, real), axis=1)[:, 3]
    got = prdc(real, fake, 3)
    np.testing.assert_array_equal(got.real_balls, (d < own[:, None]).sum(0))
    centre_radius = np.sort(radii[::2])[2]
    assert 0 < (radii[1::2] < centre_radius).sum() < 20  # the case is one that needs float64


def test_tiles_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.standard_normal((130, 12)).astype(np.float32), rng.standard_normal((70, 12)).astype(np.float32)
    want = prdc(real, fake)
    monkeypatch.setattr(manifold, "TILE_FAKES", 16)
    monkeypatch.setattr(manifold, "TILE_REALS", 50)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        got = prdc(real, fake)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(got.real_balls, want.real_balls)
    np.testing.assert_array_equal(got.covered, want.covered)
    np.testing.assert_array_equal(got.recalled, want.recalled)


def test_neighbours_against_brute_force() -> None:
    rng = np.random.default_rng(4)
    points = np.concatenate([rng.standard_normal((80, 6)), rng.integers(0, 2, (60, 6))]).astype(np.float32)
    points[100:140] = points[100]  # forty copies: more than FAISS is asked for
    queries = np.concatenate([points[::3], rng.standard_normal((20, 6)).astype(np.float32)])
    ids, squares = nearest_neighbours(points, queries, 4)
    d = ((queries[:, None].astype(np.float64) - points[None]) ** 2).sum(-1)
    want = np.argsort(d, axis=1, kind="stable")[:, :4]
    np.testing.assert_allclose(squares, np.take_along_axis(d, want, 1), rtol=1e-12, atol=1e-12)
    exact = (points == points.round()).all()  # ties are exact only among the whole numbers
    assert not exact
    whole = np.arange(len(queries))[(queries == queries.round()).all(1)]
    np.testing.assert_array_equal(ids[whole], want[whole])

    own = np.arange(len(points))
    ids, squares = nearest_neighbours(points, points, 4, own)
    assert not (ids == own[:, None]).any()
    d = cdist(points.astype(np.float64), points.astype(np.float64))
    np.fill_diagonal(d, np.inf)
    np.testing.assert_allclose(squares**0.5, np.sort(d, axis=1)[:, :4], rtol=1e-12, atol=1e-12)


def test_standard_errors() -> None:
    """Those of precision and density are the spread over fresh fakes, the reals held fixed."""
    rng = np.random.default_rng(6)
    real = rng.standard_normal((200, 6))
    found = [prdc(real, rng.standard_normal((100, 6)) * 1.2) for _ in range(200)]
    for name in ("precision", "density"):
        spread = np.std([getattr(f, name) for f in found], ddof=1)
        assert np.mean([f.errors[name] for f in found]) == pytest.approx(spread, rel=0.2)
    one = found[0]
    assert one.errors["coverage"] == pytest.approx((one.coverage * (1 - one.coverage) / 199) ** 0.5)


def test_notes() -> None:
    rng = np.random.default_rng(7)
    real = rng.standard_normal((50, 4))
    real[:8] = 1
    notes = " ".join(prdc(real, np.ones((30, 4))).notes)
    assert "30 images against 50" in notes
    assert "All 30 fake images have the same features" in notes
    assert "8 real images have more than 5 copies" in notes
    big = rng.standard_normal((1000, 4))
    assert prdc(big, rng.standard_normal((1000, 4))).notes == ()


def test_bad_input() -> None:
    x = np.random.default_rng(8).standard_normal((20, 4))
    with pytest.raises(InputError, match="real_features: 5 images; k = 5 neighbours needs at least 6"):
        prdc(x[:5], x)
    with pytest.raises(InputError, match="fake_features: 5 images"):
        prdc(x, x[:5])
    with pytest.raises(InputError, match="all 20 images have the same features"):
        prdc(np.ones((20, 4)), x)
    with pytest.raises(InputError, match="k must be at least 1; found 0"):
        prdc(x, x, 0)
    with pytest.raises(InputError, match="4 dimensions, fake_features 3"):
        prdc(x, x[:, :3])
    with pytest.raises(InputError, match="fake_features: 20 of 20 rows hold NaN"):
        prdc(x, x + np.inf)


def test_real_features(shared: Path) -> None:
    import pyarrow.parquet as pq

    from ldsaug_ray.domains.images.decode import decode_image
    from ldsaug_ray.metrics import open_extractor

    table = pq.read_table(shared / "data" / "celeba-10k" / "part-00000.parquet", columns=["image"])["image"][:100]
    images = np.stack([decode_image(row["bytes"].as_py(), resolution=64) for row in table])
    features = open_extractor(str(shared / "models" / "mobilenet_v1_embed.pt"))(images)
    assert features.shape == (100, 1024)
    assert_as_the_package(features[:50], features[50:], 5)
    assert_as_the_package(features[:50], np.concatenate([features[:15], features[50:]]), 5)
