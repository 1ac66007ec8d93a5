from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lds_oracles import log_kernel, score
from scipy.special import logsumexp

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.lds import (
    Approximation,
    BoundedScores,
    LatentIndex,
    approximate_pairs,
    approximate_points,
    latents_fingerprint,
    load_index,
    open_index,
    plan_pairs,
    save_index,
    score_block,
    score_pairs,
    score_points,
)

ALPHAS = [0.1, 0.5, 0.8]
KINDS = ("flat", "ivf", "ivfpq")


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def norm(train: np.ndarray) -> float:
    return float(np.linalg.norm(train - train.mean(0), axis=1).mean()) or 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_and_intervals_hold_the_truth(kind: str) -> None:
    z = gaussian(3000, 24) + np.float32(20)
    pairs, sigmas = plan_pairs(3000, 30, 0), [0.2 * norm(z), 0.5 * norm(z)]
    want = score(z, pairs, ALPHAS, sigmas)
    settings = Approximation(index=kind, sample=600, delta=1e-3, probes=4)
    got = score_pairs(z, pairs, ALPHAS, sigmas, backend="faiss", approximation=settings)
    assert isinstance(got, BoundedScores)
    assert got.bounded == (kind == "flat")
    for name in ("log_lds", "log_lds_excluding_parents"):
        low, estimate, high = getattr(got, f"{name}_low"), getattr(got, name), getattr(got, f"{name}_high")
        assert (low <= want[name]).all()
        assert (want[name] <= high).all() or not got.bounded
        assert (low <= estimate).all()
        assert (estimate <= high).all()
        assert np.median(high - low) < 1.0
        assert np.median(np.abs(estimate - want[name])) < 0.1
    assert np.median(np.abs(got.parent_share - want["parent_share"])) < 0.02
    assert np.median(np.abs(np.log(got.effective_neighbours / want["effective_neighbours"]))) < 0.2


@pytest.mark.parametrize("options", [{"sample": 5000}, {"neighbours": 5000, "sample": 1}])
@pytest.mark.parametrize("interpolation", ["linear", "slerp"])
def test_whole_sample_or_all_neighbours_are_exact(options: dict, interpolation: str) -> None:
    z = gaussian(300, 8)
    pairs, sigmas = plan_pairs(300, 20, 0), [0.05 * norm(z), 0.3 * norm(z), 3 * norm(z)]
    got = approximate_pairs(
        z, pairs, ALPHAS, sigmas, approximation=Approximation(**options), interpolation=interpolation
    )
    for name, value in score(z, pairs, ALPHAS, sigmas, interpolation).items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-4, atol=1e-4, err_msg=name)
    assert (got.log_lds_high - got.log_lds_low).max() < 2e-4


def test_whole_sample_is_exact_however_far_below_the_bound_the_weights_lie() -> None:
    rng = np.random.default_rng(0)
    z = (10 * rng.standard_normal((6, 24))[rng.integers(0, 6, 600)] + rng.standard_normal((600, 24))).astype(np.float32)
    pairs, sigma = plan_pairs(600, 40, 0), 0.01 * norm(z)
    want = score(z, pairs, ALPHAS, [sigma])
    got = approximate_pairs(z, pairs, ALPHAS, [sigma])
    assert want["log_lds"].min() < -1000
    for name in ("log_lds", "log_lds_excluding_parents"):
        assert np.abs(getattr(got, name) - want[name]).max() < 1e-3
        assert (getattr(got, f"{name}_low") <= want[name] + 1e-3).all()
        assert (want[name] <= getattr(got, f"{name}_high") + 1e-3).all()


def test_an_index_over_other_latents_is_refused() -> None:
    z = gaussian(300, 8)
    for other, kind in ((z[::-1].copy(), "flat"), (z[::-1].copy(), "ivf"), (z[:100], "flat")):
        index = LatentIndex.build(other, Approximation(index=kind))
        with pytest.raises(ConfigError, match="the index is"):
            approximate_pairs(z, [[0, 1]], ALPHAS, [1.0], index=index)


@pytest.mark.parametrize("scale", [0.1, 0.4])
def test_unbiased_over_samples_even_where_the_index_misses(scale: float) -> None:
    z = gaussian(400, 12)
    pairs, sigma = plan_pairs(400, 4, 0), scale * norm(z)
    want = np.exp(score(z, pairs, ALPHAS, [sigma])["log_lds_excluding_parents"])
    for kind in ("flat", "ivf"):
        settings = Approximation(index=kind, neighbours=6, sample=60, lists=8, probes=1)
        index = LatentIndex.build(z, settings)
        found = np.stack(
            [
                np.exp(
                    approximate_pairs(
                        z, pairs, ALPHAS, [sigma], approximation=dataclasses.replace(settings, seed=s), index=index
                    ).log_lds_excluding_parents
                )
                for s in range(150)
            ]
        )
        error = (found.mean(0) - want) / (found.std(0) / np.sqrt(len(found)))
        assert np.abs(error).max() < 4


def test_intervals_cover_as_often_as_they_promise() -> None:
    z = gaussian(600, 10)
    pairs, sigma, delta = plan_pairs(600, 6, 0), 0.4 * norm(z), 0.2
    want = score(z, pairs, ALPHAS, [sigma])["log_lds_excluding_parents"]
    missed = np.zeros(want.shape)
    for seed in range(60):
        settings = Approximation(index="flat", neighbours=4, sample=120, delta=delta, seed=seed)
        got = approximate_pairs(z, pairs, ALPHAS, [sigma], approximation=settings)
        missed += (want < got.log_lds_excluding_parents_low) | (want > got.log_lds_excluding_parents_high)
    assert missed.mean() <= delta * 60


def test_points() -> None:
    z = gaussian(2000, 16)
    points, sigmas = np.concatenate([gaussian(20, 16, 1), z[:3]]), [0.2 * norm(z), 0.6 * norm(z)]
    want = np.stack([logsumexp(log_kernel(z, points, s), axis=1) - np.log(2000) for s in sigmas], axis=1)
    settings = Approximation(sample=500)
    got = approximate_points(z, points, sigmas, approximation=settings)
    assert got.bounded
    assert (got.log_lds_low <= want).all()
    assert (want <= got.log_lds_high).all()
    np.testing.assert_allclose(got.log_lds, want, atol=0.5)
    same = score_points(z, points, sigmas, backend="faiss", approximation=settings, tile_rows=7, tile_latents=100)
    np.testing.assert_allclose(same, got.log_lds, atol=1e-5)
    assert approximate_points(z, points[:0], sigmas).log_lds.shape == (0, 2)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_latents(n: int) -> None:
    z, pairs = gaussian(n, 3), plan_pairs(n, 5, 0)
    got, want = approximate_pairs(z, pairs, ALPHAS, [0.1, 1.0]), score(z, pairs, ALPHAS, [0.1, 1.0])
    for name, value in want.items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-6, atol=1e-6)
    assert approximate_pairs(z, np.empty((0, 2), int), ALPHAS, [1.0]).log_lds.shape == (0, 3, 1)


def test_same_seed_same_answer_whatever_the_threads_and_tiles() -> None:
    z, settings = gaussian(1500, 12), Approximation(sample=300, index="ivf")
    pairs, sigmas = plan_pairs(1500, 40, 0), [0.3 * norm(z)]
    index = LatentIndex.build(z, settings)
    threads, found = torch.get_num_threads(), []
    try:
        for n, tiles in ((1, {}), (2, {"tile_rows": 9, "tile_latents": 50})):
            torch.set_num_threads(n)
            found.append(approximate_pairs(z, pairs, ALPHAS, sigmas, approximation=settings, index=index, **tiles))
    finally:
        torch.set_num_threads(threads)
    for name, value in dataclasses.asdict(found[0]).items():
        np.testing.assert_allclose(getattr(found[1], name), value, rtol=1e-4, atol=1e-4, err_msg=name)
    other = approximate_pairs(z, pairs, ALPHAS, sigmas, approximation=dataclasses.replace(settings, seed=1))
    assert (other.log_lds_excluding_parents != found[0].log_lds_excluding_parents).any()


def test_recall_of_the_kinds() -> None:
    z = gaussian(2000, 16)
    rows = np.arange(40)
    found = {
        kind: LatentIndex.build(z, Approximation(index=kind)).search(
            z, z[rows], rows, Approximation(index=kind, neighbours=10, probes=8)
        )
        for kind in KINDS
    }
    square = ((z[rows, None].astype(float) - z[None]) ** 2).sum(2)
    truth = np.argsort(square, axis=1)[:, 1:11]
    recall = {
        kind: np.mean([len(set(a) & set(b)) / 10 for a, b in zip(f.ids, truth, strict=True)])
        for kind, f in found.items()
    }
    assert recall["flat"] == 1.0
    assert recall["ivf"] > 0.6
    assert recall["ivfpq"] > 0.4
    assert (found["flat"].beyond <= np.sort(square, axis=1)[:, 11]).all()
    np.testing.assert_allclose(found["flat"].beyond, np.sort(square, axis=1)[:, 10], rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_index_is_saved_and_reused_for_the_same_latents_alone(kind: str, tmp_path: Path) -> None:
    z, settings = gaussian(400, 8), Approximation(index=kind)
    first, why = open_index(tmp_path, z, settings)
    assert "no saved index" in why
    again, why = open_index(tmp_path, z, settings)
    assert why == "the saved index matches"
    rows = np.arange(5)
    for name in ("ids", "beyond"):
        a, b = (getattr(x.search(z, z[rows], rows, settings), name) for x in (first, again))
        np.testing.assert_array_equal(a, b)
    changed = z.copy()
    changed[7, 3] += 1
    assert "fingerprint" in open_index(tmp_path, changed, settings)[1]
    assert "structure" in load_index(tmp_path, z, Approximation(index="ivf", lists=3), latents_fingerprint(changed))[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latents.faiss", "latents.faiss.json"]


def test_a_broken_index_is_built_again(tmp_path: Path) -> None:
    z, settings = gaussian(60, 4), Approximation(index="flat")
    mark = latents_fingerprint(z)
    save_index(tmp_path, LatentIndex.build(z, settings), mark)
    whole = (tmp_path / "latents.faiss").read_bytes()
    (tmp_path / "latents.faiss").write_bytes(whole[:50])
    assert "cannot be read" in load_index(tmp_path, z, settings, mark)[1]
    save_index(tmp_path, LatentIndex.build(z[:50], settings), mark)
    assert "50 latents" in load_index(tmp_path, z, settings, mark)[1]
    (tmp_path / "latents.faiss.json").write_text("{")
    assert "cannot be read" in open_index(tmp_path, z, settings)[1]
    assert load_index(tmp_path, z, settings, mark)[0] is not None
    (tmp_path / "latents.faiss.json").write_text(json.dumps([1]))
    assert load_index(tmp_path, z, settings, mark)[0] is None


def test_auto_index() -> None:
    assert Approximation().kind(20_000, 512) == "flat"
    assert Approximation().kind(1_000_000, 512) == "flat"
    assert Approximation().kind(100_000_000, 512) == "ivfpq"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"neighbours": 0}, "approximation.neighbours"),
        ({"sample": 0}, "approximation.sample"),
        ({"lists": 0}, "approximation.lists"),
        ({"probes": 0}, "approximation.probes"),
        ({"rerank": 0}, "approximation.rerank"),
        ({"index": "hnsw"}, "approximation.index"),
        ({"delta": 1.0}, "approximation.delta"),
        ({"seed": -1}, "approximation.seed"),
    ],
)
def test_wrong_settings(change: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Approximation(**change)


def test_wrong_arguments() -> None:
    z = gaussian(20, 3)
    with pytest.raises(ConfigError, match="at least 256 latents; found 20"):
        approximate_pairs(z, [[0, 1]], ALPHAS, [1.0], approximation=Approximation(index="ivfpq"))
    with pytest.raises(ConfigError, match="backend exact alone"):
        score_block(z, [0], [1], ALPHAS, [1.0], backend="faiss")
    with pytest.raises(InputError, match="itself"):
        score_pairs(z, [[1, 1]], ALPHAS, [1.0], backend="faiss")
    with pytest.raises(InputError, match=r"\[M, 3\]"):
        score_points(z, gaussian(2, 4), [1.0], backend="faiss")


def test_quick_benchmark_agrees(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quick` ends with an error where a race decides otherwise than exact scores; no time is judged."""
    monkeypatch.setattr(sys, "argv", ["approximate.py", "--quick", "--threads", str(torch.get_num_threads())])
    runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/approximate.py"), run_name="__main__")
    assert "race, tau" in capsys.readouterr().out
