from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lds_oracles import log_kernel, point, score
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import (
    PairScores,
    _kernel,
    interpolate,
    plan_pairs,
    score_block,
    score_gradient,
    score_pairs,
    score_points,
)
from ldsaug_ray.lds._shared import Geometry, precisions_of, with_parents

ALPHAS = [m / 10 for m in range(1, 10)]
SCALES = (0.05, 0.2, 1.0, 5.0)  # of the mean norm: the range the accuracy target names


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def norm(train: np.ndarray) -> float:
    """Mean distance from the mean; 1 for latents that are all equal."""
    return float(np.linalg.norm(train - train.mean(0, dtype=np.float64), axis=1).mean()) or 1.0


# arithmetic: what scores may be off; 1e-4 is promised
DTYPES = {"float32": 2e-5, "float64": 1e-8}
MANY = 32_768  # dimensions, in which float32's rounding is the processor's: off by 1.0e-5 on one, by 3.2e-5 on another
both = pytest.mark.parametrize("dtype", DTYPES)


def may_be_off(dtype: str, z: np.ndarray) -> float:
    return _kernel.LIMIT if dtype == "float32" and z.shape[1] >= MANY else DTYPES[dtype]


def assert_close(got: PairScores, want: dict[str, np.ndarray], atol: float = 1e-8) -> None:
    for name, value in want.items():
        array = getattr(got, name)
        assert array.dtype == np.float64
        relative = 0.0 if name.startswith("log") else 10 * atol  # logarithms: what is asked is their absolute error
        np.testing.assert_allclose(array, value, rtol=max(relative, 1e-7), atol=atol, err_msg=name)
    assert np.isfinite(got.log_lds).all()
    assert not any(np.isnan(getattr(got, f.name)).any() for f in dataclasses.fields(got))


def with_duplicates() -> np.ndarray:
    z = gaussian(40, 16)
    z[20:30] = z[:10]
    return z


def two_clusters() -> np.ndarray:
    z = gaussian(40, 8) * 0.01
    z[:20] += 5
    return z


HARD = {
    "d = 1": gaussian(30, 1),
    "d = 4096": gaussian(30, 4096),
    "N = 2": gaussian(2, 5),
    "N = 3": gaussian(3, 5),
    "duplicates": with_duplicates(),
    "all equal": np.full((12, 6), 0.3, np.float32),
    "offset 100 x spread": gaussian(40, 64) + np.float32(100),
    "offset, d = 4096": gaussian(24, 4096) + np.float32(100),
    "d = 32768": gaussian(20, 32768),
    "offset, d = 32768": gaussian(16, 32768) + np.float32(10),
    "two clusters": two_clusters(),
    "tiny units": gaussian(30, 8) * np.float32(1e-30),
    "large units": gaussian(30, 8) * np.float32(1e30),
    "float64": np.random.default_rng(1).standard_normal((30, 8)),
    "strided": gaussian(60, 16)[::2, ::2],
    "Fortran order": np.asfortranarray(gaussian(30, 8)),
}


@both
@pytest.mark.parametrize("case", HARD)
def test_score_pairs_against_brute_force(case: str, dtype: str) -> None:
    z = HARD[case].copy(order="K") if case != "strided" else HARD[case]
    z.flags.writeable = False
    sigmas = [scale * norm(z) for scale in SCALES]
    pairs = plan_pairs(len(z), 12, 4)
    for alphas in ([0.1, 0.5, 0.9], [-0.2, 0.25, 1.3]):
        found = score_pairs(z, pairs, alphas, sigmas, dtype=dtype)
        assert_close(found, score(z, pairs, alphas, sigmas), may_be_off(dtype, z))


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e-2, 1e3, 1e20])
def test_extreme_bandwidths_stay_finite_and_right(scale: float) -> None:
    z = gaussian(30, 32)
    sigma = scale * norm(z)
    pairs = plan_pairs(30, 8, 0)
    alphas = [0.1, 0.4, 0.8]  # at 0.5 the parents tie exactly: there rounding decides for the brute force
    got = score_pairs(z, pairs, alphas, [sigma])
    want = score(z, pairs, alphas, [sigma])
    assert np.isfinite(got.log_lds).all()
    assert (got.log_lds <= 0).all()
    np.testing.assert_allclose(got.log_lds, want["log_lds"], rtol=1e-12, atol=1e-6)
    np.testing.assert_allclose(got.parent_share, want["parent_share"], atol=1e-6)
    np.testing.assert_allclose(got.effective_neighbours, want["effective_neighbours"], rtol=1e-6)


def test_numbers_of_extreme_size() -> None:
    z = gaussian(30, 32)
    tied = score_pairs(z, [[0, 1]], [0.5], [1e-20])
    assert tied.effective_neighbours.item() == 2.0
    finite = score_pairs(z[:5] * np.float32(1e38), [[0, 1]], [-1e6, 0.0, 1e6], [1e-100, 1e100])
    assert np.isfinite(finite.log_lds).all()
    assert np.isfinite(finite.effective_neighbours).all()


def test_tiles_keep_their_size_in_many_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with tiles of few rows, and none with more."""
    assert _kernel.rows_within(32_768, 4096) == 32_768
    assert _kernel.rows_within(32_768, 32_768) * 32_768 * 4 <= _kernel.ROW_BYTES
    z, sigmas, pairs = gaussian(40, 64), [1.5, 8.0], plan_pairs(40, 30, 4)
    monkeypatch.setattr(_kernel, "ROW_BYTES", 7 * 4 * 64)
    monkeypatch.setattr(_kernel, "LATENT_BYTES", 3 * 4 * 64)
    seen = []
    rows = _kernel.Frame.rows
    monkeypatch.setattr(_kernel.Frame, "rows", lambda f, x, dtype: seen.append(len(x)) or rows(f, x, dtype))
    monkeypatch.setattr(_kernel.Rounding, "measured", lambda *_: _kernel.Rounding(1e-8, 1e-7))
    got = score_pairs(z, pairs, [0.1, 0.5], sigmas)
    assert max(seen) <= 7
    assert_close(got, score(z, pairs, [0.1, 0.5], sigmas), 1e-5)
    want = logsumexp(np.stack([log_kernel(z, z, s) for s in sigmas], 2), axis=1) - np.log(40)
    np.testing.assert_allclose(score_points(z, z, sigmas), want, atol=1e-5)
    assert max(seen) <= 7


def test_any_real_alpha_and_a_single_pair() -> None:
    z = gaussian(25, 6)
    alphas = [-3.0, -0.5, 0.0, 1.0, 1.25, 8.0]
    got = score_pairs(z, [[3, 24]], alphas, [0.5, 2.0])
    assert_close(got, score(z, np.array([[3, 24]]), alphas, [0.5, 2.0]), 1e-5)


def test_a_duplicate_of_a_parent_is_not_the_parent() -> None:
    z = gaussian(10, 4)
    z[7] = z[2]
    got = score_pairs(z, [[2, 5]], [0.0], [1e-3])
    # at alpha = 0 the candidate is latent 2 and its copy 7, each of weight 1
    np.testing.assert_allclose(np.exp(got.log_lds_excluding_parents), 1 / 10)
    np.testing.assert_allclose(got.parent_share, 0.5)
    np.testing.assert_allclose(got.effective_neighbours, 2.0)


def test_two_latents_leave_no_density_without_the_parents() -> None:
    got = score_pairs(gaussian(2, 3), [[0, 1], [1, 0]], ALPHAS, [0.1, 10.0])
    assert np.isneginf(got.log_lds_excluding_parents).all()
    np.testing.assert_array_equal(got.parent_share, 1.0)


def test_the_parents_part_adds_up() -> None:
    z = gaussian(50, 12)
    pairs = plan_pairs(50, 20, 1)
    got = score_pairs(z, pairs, ALPHAS, [1.0, 3.0])
    gap = np.linalg.norm(z[pairs[:, 0]].astype(float) - z[pairs[:, 1]], axis=1)[:, None, None]
    a, sigma = np.array(ALPHAS)[:, None], np.array([1.0, 3.0])
    parents = np.exp(-((a * gap) ** 2) / (2 * sigma**2)) + np.exp(-(((1 - a) * gap) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(np.exp(got.log_lds), np.exp(got.log_lds_excluding_parents) + parents / 50, rtol=1e-6)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(rows=st.integers(1, 40), latents=st.integers(1, 70), seed=st.integers(0, 99))
def test_tiles_do_not_change_the_answer(rows: int, latents: int, seed: int) -> None:
    z = gaussian(60, 5, seed)
    pairs = plan_pairs(60, 30, seed)
    tiles = {"tile_rows": rows, "tile_latents": latents}
    whole = score_pairs(z, pairs, [0.2, 0.5], [0.02, 1.0])
    points = score_points(z, z[:9] + 1, [0.02, 1.0])
    gradient = score_gradient(z, z[:9] + 1, 0.5)
    cut = score_pairs(z, pairs, [0.2, 0.5], [0.02, 1.0], **tiles)
    assert_close(cut, dataclasses.asdict(whole), atol=1e-5)
    np.testing.assert_allclose(score_points(z, z[:9] + 1, [0.02, 1.0], **tiles), points, rtol=0, atol=1e-5)
    np.testing.assert_allclose(score_gradient(z, z[:9] + 1, 0.5, **tiles), gradient, rtol=1e-5, atol=1e-6)


def test_pair_tiles_cover_the_list_and_bound_the_parents() -> None:
    pairs = plan_pairs(50, 400, 2)
    for rows in (2, 3, 7, 49, 50, 1000):
        tiles = list(_kernel.pair_tiles(pairs, rows))
        assert [t.start for t in tiles] == [0, *(t.stop for t in tiles[:-1])]
        assert tiles[-1].stop == 400
        assert max(len(np.unique(pairs[t])) for t in tiles) <= rows


@both
@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0])
def test_on_the_arc(offset: float, dtype: str) -> None:
    z = gaussian(50, 12) + np.float32(offset)
    pairs, alphas = plan_pairs(50, 12, 1), [-0.3, 0.1, 0.5, 0.9, 1.2]
    sigmas = [scale * norm(z) for scale in SCALES]
    got = score_pairs(z, pairs, alphas, sigmas, interpolation="slerp", dtype=dtype)
    assert_close(got, score(z, pairs, alphas, sigmas, "slerp"), DTYPES[dtype] * (1 + offset / 10))
    points = interpolate(z, pairs[:, 0], pairs[:, 1], 0.3, "slerp")
    want = [point(*z[p].astype(np.float64), 0.3, "slerp") for p in pairs]
    np.testing.assert_allclose(points, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("turn", [1e-3, 3e-4])
def test_slerp_of_nearly_opposite_and_nearly_parallel_parents(turn: float) -> None:
    z = np.random.default_rng(3).standard_normal((40, 32))
    z[1] = -z[0] + turn * z[2]
    z[3] = 3 * z[4] + turn * z[5]
    pairs, sigmas = np.array([[0, 1], [3, 4]]), [5.0, 50.0]
    got = score_pairs(z, pairs, [0.3, 0.6], sigmas, interpolation="slerp", dtype="float64")
    want = score(z, pairs, [0.3, 0.6], sigmas, "slerp")
    np.testing.assert_allclose(got.log_lds, want["log_lds"], rtol=1e-7, atol=1e-6)


def test_an_arc_that_is_none_is_the_line() -> None:
    z = np.array([[1, 2], [2, 4], [-1, -2], [0, 0], [3, 1]], np.float32)  # parallel, opposite, and the origin itself
    pairs = [[0, 1], [0, 2], [0, 3]]
    arc, line = (score_pairs(z, pairs, [0.25], [1.0], interpolation=k) for k in ("slerp", "linear"))
    assert_close(arc, dataclasses.asdict(line), atol=1e-6)
    np.testing.assert_allclose(interpolate(z, 0, 2, 0.25, "slerp"), interpolate(z, 0, 2, 0.25), atol=1e-6)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    n=st.integers(2, 60),
    d=st.integers(1, 40),
    spread=st.floats(0.0, 3.0),
    far=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    scale=st.sampled_from([0.05, 0.1, 0.2, 0.5, 5.0]),
    alphas=st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.9, 0.15, 1.5, -0.5]), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 99),
)
def test_float32_is_right_or_not_used(
    n: int, d: int, spread: float, far: float, scale: float, alphas: list[float], seed: int
) -> None:
    """Heavy tails, outliers, tight groups: whatever float32 cannot do must have been done in float64."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d)) * np.exp(spread * rng.standard_normal((n, 1)))
    z[0] *= 1 + far
    z = z.astype(np.float32)
    pairs, sigmas = plan_pairs(n, 10, seed), [scale * norm(z), 0.3 * norm(z)]
    assert_close(score_pairs(z, pairs, alphas, sigmas), score(z, pairs, alphas, sigmas), 1e-4)


def test_repeated_pairs_and_no_pairs() -> None:
    z = gaussian(20, 4)
    got = score_pairs(z, [[1, 2], [1, 2], [2, 1]], [0.3, 0.7], [1.0])
    np.testing.assert_array_equal(got.log_lds[0], got.log_lds[1])
    np.testing.assert_allclose(got.log_lds[2], got.log_lds[0, ::-1])  # (j, i, alpha) is (i, j, 1 - alpha)
    assert score_pairs(z, np.empty((0, 2), int), ALPHAS, [1.0, 2.0]).log_lds.shape == (0, 9, 2)


def test_score_block_is_the_grid_of_pairs() -> None:
    z = gaussian(80, 6)
    rows, columns = np.arange(0, 21), np.arange(79, 40, -1)
    pairs = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    for options in ({}, {"tile_rows": 40, "tile_latents": 7}, {"dtype": "float64"}, {"interpolation": "slerp"}):
        for alphas in ([0.25, 0.5], [-1.0, 0.0], [0.1, 0.9]):
            got = score_block(z, rows, columns, alphas, [0.05, 0.5, 2.0], **options)
            want = score(z, pairs, alphas, [0.05, 0.5, 2.0], options.get("interpolation", "linear"))
            assert got.log_lds.shape == (21, 39, 2, 3)
            flat = {name: array.reshape(-1, 2, 3) for name, array in dataclasses.asdict(got).items()}
            assert_close(PairScores(**flat), want, atol=1e-8 if "dtype" in options else 2e-5)
    with pytest.raises(InputError, match="share 2 latents, first 3"):
        score_block(z, [1, 3, 5], [3, 5, 7], [0.5], [1.0])
    with pytest.raises(InputError, match=r"columns\[0\] = 80"):
        score_block(z, [1], [80], [0.5], [1.0])


@both
@pytest.mark.parametrize("case", HARD)
def test_score_points_against_brute_force(case: str, dtype: str) -> None:
    z = HARD[case]
    points = np.concatenate([z[:3], z[:3] + np.float32(0.7 * norm(z) / z.shape[1] ** 0.5)])
    sigmas = [scale * norm(z) for scale in SCALES]
    got = score_points(z, points, sigmas, dtype=dtype)
    want = np.stack([logsumexp(log_kernel(z, points, s), axis=1) - np.log(len(z)) for s in sigmas], axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-7 if dtype == "float64" else 0, atol=may_be_off(dtype, z))
    assert (got <= 0).all()


def test_score_points_against_sklearn() -> None:
    z, points, sigma = gaussian(200, 6), gaussian(40, 6, 1), 0.8
    # leaf_size = N makes it brute force; its other settings are off by far in many dimensions
    tree = KernelDensity(bandwidth=sigma, leaf_size=200, rtol=0, atol=0).fit(z.astype(np.float64))
    log_norm = 6 / 2 * np.log(2 * np.pi * sigma**2)  # sklearn's kernel integrates to one, LDS peaks at one
    want = tree.score_samples(points.astype(np.float64)) + log_norm
    np.testing.assert_allclose(score_points(z, points, [sigma], dtype="float64")[:, 0], want, atol=1e-9)


def test_shards_merge_to_the_whole() -> None:
    """Sums over shards of the latents, merged in their order, are the sums over all of them."""
    z = gaussian(90, 9)
    pairs, alphas = plan_pairs(90, 40, 3), np.array([0.1, 0.4])
    precisions = precisions_of([0.3, 1.0])
    geometry, frame = Geometry.of(z, pairs, alphas, "linear"), _kernel.Frame.over(z)
    parents, local = np.unique(pairs, return_inverse=True)
    whole = score_pairs(z, pairs, alphas, [0.3, 1.0])
    for size in (1, 7, 45, 89):
        sums = _kernel.Sums.empty(40, 2, 2)
        for start in range(0, 90, size):
            shard = _kernel.shard_sums(
                frame,
                z[parents],
                parents - start,
                local.reshape(-1, 2),
                geometry.gaps,
                geometry.mix,
                z[start : start + size],
                precisions,
                np.float32,
                16,
            )
            sums = _kernel.merge(sums, shard)
        assert_close(with_parents(geometry, sums, precisions, 90), dataclasses.asdict(whole), atol=1e-5)


def test_the_number_of_threads_does_not_change_the_answer() -> None:
    z = gaussian(300, 24)
    pairs = plan_pairs(300, 100, 0)
    threads = torch.get_num_threads()
    found = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(score_pairs(z, pairs, ALPHAS, [1.0, 2.0]))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert_close(other, dataclasses.asdict(found[0]), atol=1e-6)  # the matrix product may differ in a bit


def test_points_and_pairs_agree() -> None:
    z = gaussian(60, 8).astype(np.float64)
    pairs = plan_pairs(60, 10, 0)
    points = 0.7 * z[pairs[:, 0]] + 0.3 * z[pairs[:, 1]]
    np.testing.assert_allclose(
        score_pairs(z, pairs, [0.3], [0.4, 4.0]).log_lds[:, 0], score_points(z, points, [0.4, 4.0]), atol=1e-5
    )


def test_gaussian_closed_form() -> None:
    """x ~ N(0, I): E exp(-|z-x|^2/2s^2) = (1 + 1/s^2)^(-d/2) exp(-|z|^2 / 2(1 + s^2))."""
    d, sigma = 512, 10.0
    z = gaussian(4000, d)
    pairs = plan_pairs(4000, 40, 0)
    got = score_pairs(z, pairs, [0.3], [sigma]).log_lds_excluding_parents[:, 0, 0]
    candidates = 0.7 * z[pairs[:, 0]] + 0.3 * z[pairs[:, 1]]
    square = np.einsum("md,md->m", candidates, candidates, dtype=np.float64)
    want = -d / 2 * np.log1p(sigma**-2) - square / (2 * (1 + sigma**2))
    assert np.median(np.abs(got - want)) < 0.01


def test_gradient_is_the_mean_shift_and_the_slope() -> None:
    z, points, sigma = gaussian(80, 5) + np.float32(3), gaussian(12, 5, 1) + np.float32(3), 0.7
    got = score_gradient(z, points, sigma)
    assert got.dtype == np.float32
    w = np.exp(log_kernel(z, points, sigma))
    shift = w @ z.astype(np.float64) / w.sum(1, keepdims=True) - points
    np.testing.assert_allclose(got, shift / sigma**2, rtol=1e-5, atol=1e-6)
    step = 1e-5
    for k in range(5):
        e = step * np.eye(5)[k]
        x = points.astype(np.float64)
        above, below = (score_points(z, moved, [sigma], dtype="float64")[:, 0] for moved in (x + e, x - e))
        slope = (above - below) / (2 * step)
        np.testing.assert_allclose(got[:, k], slope, rtol=1e-4, atol=1e-5)


def test_gradient_at_small_sigma() -> None:
    z = gaussian(20, 4)
    got = score_gradient(z, z[:1] + np.float32(1e-3), 1e-2)  # one neighbour only
    np.testing.assert_allclose(got, (z[:1] - (z[:1] + np.float32(1e-3))) / 1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="exceeds float32"):
        score_gradient(z, z[:1] + 1, 1e-30)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"pairs": [[0, 9]]}, InputError, r"pairs\[:, 1\]\[0\] = 9 is no row of 9"),
        ({"pairs": [[0, 1], [-1, 2]]}, InputError, r"pairs\[:, 0\]\[1\] = -1"),
        ({"pairs": [[0, 1], [4, 4]]}, InputError, "pair 1 joins latent 4 with itself"),
        ({"pairs": [[0.0, 1.0]]}, InputError, "row numbers"),
        ({"pairs": [0, 1]}, InputError, r"\[P, 2\]"),
        ({"sigmas": [1.0, 0.0]}, ConfigError, "positive"),
        ({"sigmas": [-1.0]}, ConfigError, "found -1"),
        ({"sigmas": [np.nan]}, ConfigError, "finite"),
        ({"sigmas": [np.inf]}, ConfigError, "finite"),
        ({"sigmas": []}, ConfigError, "sigmas"),
        ({"alphas": [np.nan]}, ConfigError, "alphas"),
        ({"backend": "magic"}, ConfigError, "'magic'; possible: exact, faiss"),
        ({"tile_latents": 0}, ConfigError, "at least 1"),
        ({"train": np.full((9, 2), np.nan)}, InputError, "9 of 9 rows, first in row 0"),
    ],
)
def test_wrong_arguments(change: dict, error: type[Exception], text: str) -> None:
    call = {"train": gaussian(9, 2), "pairs": [[0, 1]], "alphas": [0.5], "sigmas": [1.0]} | change
    with pytest.raises(error, match=text):
        score_pairs(call.pop("train"), call.pop("pairs"), call.pop("alphas"), call.pop("sigmas"), **call)


def test_wrong_points() -> None:
    with pytest.raises(InputError, match=r"\[M, 2\]"):
        score_points(gaussian(9, 2), gaussian(3, 4), [1.0])
    with pytest.raises(InputError, match="the points hold NaN"):
        score_points(gaussian(9, 2), [[np.nan, 0]], [1.0])
    assert score_points(gaussian(9, 2), np.empty((0, 2)), [1.0, 2.0]).shape == (0, 2)
