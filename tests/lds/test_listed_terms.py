"""Sums of the latents that can matter, at any bandwidth, against direct differences; code that is kept and loaded."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lds_oracles import log_kernel, score
from numba.core.dispatcher import Dispatcher
from scipy.special import logsumexp

from ldsaug_ray.lds import (
    _compiled,
    _kernel,
    _near_compiled,
    _tenths_compiled,
    _terms_compiled,
    plan_pairs,
    score_block,
    score_pairs,
    score_points,
)
from ldsaug_ray.lds._frame import EPSILON, Frame, Rounding
from ldsaug_ray.lds._kernel import _Terms, _Tile

PROMISED = 1e-4


def latents(kind: str, n: int, d: int, offset: float, seed: int) -> np.ndarray:
    """float32[n, d]: standard normal, in tight clusters (also one after another), or with duplicates and an outlier;
    shifted by `offset`."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d))
    if kind in ("clusters", "in order"):
        of = rng.integers(0, 3, n)
        z = rng.standard_normal((3, d))[np.sort(of) if kind == "in order" else of] + 0.1 * z
    if kind == "duplicates":
        z[n // 2 :] = z[: n - n // 2]
        z[0] *= 50
    return (z + offset).astype(np.float32)


def mean_norm(z: np.ndarray) -> float:
    return float(np.linalg.norm(z - z.mean(0, dtype=np.float64), axis=1).mean()) or 1.0


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["normal", "clusters", "duplicates"]),
    n=st.integers(3, 60),
    d=st.sampled_from([1, 2, 7, 64, 512, 4096]),
    offset=st.sampled_from([0.0, 10.0]),
    logs=st.lists(st.floats(np.log(0.01), np.log(20)), min_size=1, max_size=3),
    curve=st.sampled_from(["linear", "slerp"]),
    seed=st.integers(0, 99),
)
def test_any_sigma(kind: str, n: int, d: int, offset: float, logs: list[float], curve: str, seed: int) -> None:
    """From 0.01 to 20 x the mean norm, with and without parents, on the line and the arc, as pairs and as points."""
    z, alphas = latents(kind, n, d, offset, seed), [0.1, 0.4, 0.5, 0.9]
    curve = curve if d > 1 and kind != "duplicates" else "linear"  # the oracle knows no arc between parallel parents
    pairs, sigmas = plan_pairs(n, 6, seed), list(np.exp(logs) * mean_norm(z))
    got, want = score_pairs(z, pairs, alphas, sigmas, interpolation=curve), score(z, pairs, alphas, sigmas, curve)
    for name, value in want.items():
        tolerance = {"atol": PROMISED} if name.startswith("log") else {"atol": PROMISED, "rtol": 10 * PROMISED}
        np.testing.assert_allclose(getattr(got, name), value, **tolerance, err_msg=name)
    points = z[:5] + np.float32(0.01)
    want_points = np.stack([logsumexp(log_kernel(z, points, s), axis=1) - np.log(n) for s in sigmas], axis=1)
    np.testing.assert_allclose(score_points(z, points, sigmas), want_points, atol=PROMISED)


@pytest.mark.parametrize("scale", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["normal", "clusters", "duplicates"])
def test_many_latents_in_tiles_of_any_width(kind: str, scale: float) -> None:
    """In one tile and in many; blocks as pairs; float64 products are not needed for any of it."""
    n, alphas = 1101, [0.1, 0.5, 0.8]
    z = latents(kind, n, 24, 3.0, 1)
    rows, columns, sigma = np.arange(4), np.arange(5, 9), scale * mean_norm(z)
    pairs = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    want = score(z, pairs, alphas, [sigma])
    for tile_latents in (n, 100):
        for got in (
            score_pairs(z, pairs, alphas, [sigma], tile_latents=tile_latents),
            score_block(z, rows, columns, alphas, [sigma], tile_latents=tile_latents),
        ):
            for name, value in want.items():
                array = getattr(got, name).reshape(value.shape)
                np.testing.assert_allclose(array, value, atol=PROMISED, rtol=10 * PROMISED, err_msg=name)


@pytest.mark.parametrize("kind", ["normal", "clusters", "duplicates"])
@pytest.mark.parametrize("n", [2, 3, 1030, 2100])
def test_sums_of_powers(kind: str, n: int) -> None:
    """Sigmas of which the exponentials of a chunk of latents are a polynomial, and such of which they are not."""
    z, alphas = latents(kind, n, 24, 1.0, 5), [m / 10 for m in range(1, 10)]
    pairs = np.array([[0, n - 1], [n - 1, n // 2], [n // 2 - 1, n // 2]])[: n - 1]
    sigmas = [scale * mean_norm(z) for scale in (0.3, 0.6, 0.9, 1.5, 4.0, 50.0)]
    got = score_pairs(z, pairs, alphas, sigmas)
    for name, value in score(z, pairs, alphas, sigmas).items():
        np.testing.assert_allclose(getattr(got, name), value, atol=2e-5, rtol=4e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["normal", "clusters"])
def test_a_sigma_does_not_depend_on_the_others(kind: str) -> None:
    """To the bit: the command of a search's best trial repeats it."""
    z, alphas = latents(kind, 900, 48, 0.0, 2), [m / 10 for m in range(1, 10)]
    pairs, sigmas = plan_pairs(len(z), 40, 0), [s * mean_norm(z) for s in (0.01, 0.04, 0.07, 0.1, 0.2, 2.0)]
    together = score_pairs(z, pairs, alphas, sigmas)
    for s, sigma in enumerate(sigmas):
        alone = score_pairs(z, pairs, alphas, [sigma])
        for field in dataclasses.fields(alone):
            np.testing.assert_array_equal(getattr(together, field.name)[..., s], getattr(alone, field.name)[..., 0])


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[np.dtype]:
    """Types of the tiles that are added up."""
    found = []
    init = _Tile.__init__

    def noted(self: _Tile, *arguments: object, **options: object) -> None:
        init(self, *arguments, **options)  # type: ignore[arg-type]
        found.append(self.dtype)

    monkeypatch.setattr(_Tile, "__init__", noted)
    return found


def test_no_pair_is_taken_in_float64(kinds: list[np.dtype]) -> None:
    """What made small sigmas slow: whole tiles of float64 products."""
    z = latents("clusters", 300, 64, 0.0, 3)
    score_pairs(z, plan_pairs(len(z), 50, 0), [0.1, 0.5], [s * mean_norm(z) for s in (0.01, 0.05, 0.1, 0.2, 5.0)])
    assert set(kinds) == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["clusters", "in order"])
@pytest.mark.parametrize("alphas", [[m / 10 for m in range(1, 10)], [0.25, 0.5]])
def test_candidates_far_from_all_are_none_that_float32_loses(
    kinds: list[np.dtype], kind: str, alphas: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However exact products are: between clusters, sums that start from the parents' neighbours are nearly nothing."""
    monkeypatch.setattr(Rounding, "measured", lambda *arguments: Rounding(EPSILON / 8, EPSILON / 8))
    z = latents(kind, 2000, 64, 0.0, 3)
    pairs, sigmas = plan_pairs(len(z), 100, 0), [s * mean_norm(z) for s in (0.05, 0.08, 0.1, 0.12, 0.2, 0.5)]
    got = score_pairs(z, pairs, alphas, sigmas, tile_latents=100)
    assert set(kinds) == {np.dtype(np.float32)}
    for name, value in score(z, pairs, alphas, sigmas).items():
        np.testing.assert_allclose(getattr(got, name), value, atol=PROMISED, rtol=10 * PROMISED, err_msg=name)


@pytest.mark.parametrize("rise", [30.0, 42.0, 47.0, 55.0, 65.0, 100.0])
def test_a_later_tile_with_nearer_latents(rise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights beside those of the nearest that sums start from: their squares leave float32's range long before."""
    monkeypatch.setattr(_kernel, "FEW", 1)
    rng = np.random.default_rng(0)
    z = 0.5 * rng.standard_normal((160, 24)).astype(np.float32)
    z[:3] = np.array([[1, 0], [-1, 0], [0, 2.8**0.5]]) @ np.eye(2, 24)  # the third is nearest to both parents
    z[120:125] *= 0.01  # nearer by 2.8, squared
    sigma = float(np.sqrt(2.8 / (2 * rise)))
    for alphas in ([m / 10 for m in range(1, 10)], [0.3, 0.5]):
        want = score(z, np.array([[0, 1]]), alphas, [sigma])
        for got in (
            score_pairs(z, np.array([[0, 1]]), alphas, [sigma], tile_latents=25),
            score_block(z, [0], [1], alphas, [sigma], tile_latents=25),
        ):
            for name, value in want.items():
                array = getattr(got, name).reshape(value.shape)
                np.testing.assert_allclose(array, value, atol=PROMISED, rtol=10 * PROMISED, err_msg=name)


def test_a_far_latent_is_no_bound_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It made every latent one that float32 tells nothing of, 38 times slower."""
    kept = []
    add = _Terms.add

    def noted(self: _Terms, *arguments: object) -> None:
        add(self, *arguments)  # type: ignore[arg-type]
        kept.append((self.left > 0).mean())

    monkeypatch.setattr(_Terms, "add", noted)
    z = latents("normal", 8192, 64, 0.0, 4)
    sigma = 0.07 * mean_norm(z)
    z[100] *= 1000
    frame, pairs, alphas = Frame.over(z), plan_pairs(len(z), 50, 0), [0.1, 0.5]
    assert frame.scale**2 * frame.typical_norm == pytest.approx(64, rel=0.02)
    got, want = (score_pairs(z, pairs, alphas, [sigma], dtype=t) for t in ("float32", "float64"))
    np.testing.assert_allclose(got.log_lds, want.log_lds, atol=PROMISED)
    assert max(kept) > 0.9  # sums of which a part stays in float32


@pytest.mark.parametrize("seed", range(12))
def test_heavy_tails_and_candidates_beyond_their_parents(seed: int) -> None:
    """A latent far out is listed by its own rounding; a tile in which there is no other was left out."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 4))
    z = (rng.standard_normal((1200, d)) * np.exp(1.5 * rng.standard_normal((1200, 1)))).astype(np.float32)
    pairs, alphas, sigmas = plan_pairs(len(z), 30, seed), [-6.0, -2.0, 0.3, 4.0, 9.0], [0.02, 0.05, 0.2]
    sigmas = [s * mean_norm(z) for s in sigmas]
    got, want = (score_pairs(z, pairs, alphas, sigmas, dtype=t, tile_latents=25) for t in ("float32", "float64"))
    np.testing.assert_allclose(got.log_lds, want.log_lds, atol=PROMISED, rtol=1e-10)
    for s, sigma in enumerate(sigmas):
        alone = score_pairs(z, pairs, alphas, [sigma], tile_latents=25)
        np.testing.assert_array_equal(alone.log_lds[..., 0], got.log_lds[..., s])


@pytest.mark.parametrize("n", [5, 60, 400])
@pytest.mark.parametrize("alphas", [[m / 10 for m in range(1, 10)], [0.2, 0.5]])
def test_latents_of_which_nearly_all_are_one(n: int, alphas: list[float]) -> None:
    """These lie at the frame's origin, where nothing is left that rounding is a share of."""
    for d in (1, 3, 32, 200):
        z = latents("normal", n, d, 0.0, 7)
        z[np.random.default_rng(d).random(n) < 0.95] = 0
        pairs, sigmas = plan_pairs(n, 10, 0), [0.02, 0.1, 0.5, 3.0]
        got, want = score_pairs(z, pairs, alphas, sigmas), score(z, pairs, alphas, sigmas)
        np.testing.assert_allclose(got.log_lds, want["log_lds"], atol=PROMISED, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("times", [1e4, 1e6, 1e9])
def test_a_latent_as_far_as_any(times: float, dtype: str) -> None:
    """It throws the mean of all, and as a parent the distances from it, by more than the others differ."""
    z = latents("normal", 200, 16, 0.0, 6)
    sigmas = [s * mean_norm(z) for s in (0.05, 0.2, 0.5, 2.0)]
    z[7] *= times
    pairs, alphas = np.array([[0, 1], [2, 3], [7, 4], [5, 7]]), [0.0, 0.5, 1.0]
    got, want = score_pairs(z, pairs, alphas, sigmas, dtype=dtype), score(z, pairs, alphas, sigmas)
    ordinary = np.ones((4, 3), bool)
    ordinary[2, :2] = ordinary[3, 1:] = False  # so far out that the logarithm has no digits left of what it is off by
    for name, value in want.items():
        array = getattr(got, name)[ordinary]
        np.testing.assert_allclose(array, value[ordinary], atol=PROMISED, rtol=10 * PROMISED, err_msg=name)


SCORES = """
import hashlib
import numpy as np
from ldsaug_ray.lds import score_pairs
from ldsaug_ray.lds._terms_compiled import add_terms

z = np.random.default_rng(0).standard_normal((600, 32), np.float32)
z[300:] = 3 + 0.1 * z[300:]
digest = hashlib.sha256()
for alphas, sigmas in (([0.25, 0.4], [0.02, 0.2, 0.4]), ([m / 10 for m in range(1, 10)], [0.2, 0.5, 2.0, 20.0])):
    for curve in ("linear", "slerp"):
        scores = score_pairs(z, np.arange(80, 520).reshape(-1, 2), alphas, sigmas, interpolation=curve)
        digest.update(scores.log_lds_excluding_parents.tobytes() + scores.effective_neighbours.tobytes())
print(sum(add_terms.stats.cache_misses.values()), sum(add_terms.stats.cache_hits.values()), digest.hexdigest())
"""


def test_code_that_was_kept_gives_the_bits_of_code_just_compiled(tmp_path: Path) -> None:
    """In two processes that share a cache: the first compiles, the second loads."""
    environment, command = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, [sys.executable, "-c", SCORES]
    (misses, _, compiled), (_, hits, loaded) = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert (misses, hits) == ("1", "1")
    assert compiled == loaded


def test_without_a_folder_to_keep_code_in_it_is_compiled_for_the_process() -> None:
    """An install and a home that cannot be written to, where Numba finds no place and fails."""
    code = """
import numpy as np
from numba.core import caching

caching.CacheImpl._locator_classes = []
from ldsaug_ray.lds import _compiled
from ldsaug_ray.metrics import _compiled as _

inside = np.empty(2, bool)
_compiled.rows_within(np.array([[1.0], [7.0]], np.float32), 5.0, inside, 0, 2)
print(_compiled.rows_within.stats.cache_path, inside)
"""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split(maxsplit=1) == ["None", "[ True False]\n"]


def test_what_is_called_from_compiled_code_is_compiled_into_it() -> None:
    """Else two versions of it exist, and which one is called depends on who compiled."""
    called = [
        helper
        for module in (_compiled, _near_compiled, _tenths_compiled, _terms_compiled)
        for loop in vars(module).values()
        if isinstance(loop, Dispatcher)
        for name in loop.py_func.__code__.co_names
        if isinstance(helper := vars(module).get(name), Dispatcher)
    ]
    assert called
    assert all(helper.targetoptions.get("forceinline") for helper in called)


def test_kept_code_is_stale_once_any_file_of_inner_loops_has_changed() -> None:
    """Numba itself looks at the file of a function alone, not at those of what is compiled into it."""
    loops = [_compiled.settle, _tenths_compiled.add_tenths, _near_compiled.near_sums, _terms_compiled.add_terms]
    assert {Path(inspect.getfile(loop.py_func)) for loop in loops} == set(_compiled._SOURCES)
    assert {loop._cache._cache_file._source_stamp for loop in loops} == {_compiled._DIGEST}
