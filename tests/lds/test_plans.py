"""Plans of candidates and their noise: against brute force in float64, and every range the same."""

from __future__ import annotations

import itertools

import lds_oracles
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from ldsaug_ray.config import Config, Score, load_config
from ldsaug_ray.errors import ConfigError, ImpossibleError
from ldsaug_ray.lds import Noise, Plan, candidates, interpolate, neighbour_pairs, noise_over
from ldsaug_ray.lds.shards import Frame, Work, cut, parents_of, part, scores

N, D = 60, 5
TRAIN = np.random.default_rng(0).normal(3.0, 1.0, (N, D)).astype(np.float32)
GAPS = np.linalg.norm(TRAIN[:, None].astype(float) - TRAIN, axis=2)


def test_noise_has_one_norm_every_direction_and_is_a_function_of_seed_and_id() -> None:
    noise = Noise(0.7, 5)
    whole = noise.of(np.arange(4000), 3)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 0.7, rtol=1e-12)
    # Archimedes: a coordinate of a point on the sphere in three dimensions is uniform
    for axis in whole.T:
        assert stats.kstest(axis / 0.7, stats.uniform(-1, 2).cdf).pvalue > 0.001
    some = np.array([3, 4, 5, 17, 3999, 0])
    assert (noise.of(some, 3) == whole[some]).all()
    assert (Noise(0.7, 6).of(some, 3) != whole[some]).all()
    assert noise.of(np.empty(0, np.int64), 3).shape == (0, 3)


def test_the_radius_is_a_share_of_the_median_distance() -> None:
    nearest = np.where(np.eye(N, dtype=bool), np.inf, GAPS).min(axis=1)
    noise = noise_over(TRAIN, Score(noise=0.5), 0)
    assert noise is not None
    assert noise.radius == pytest.approx(0.5 * np.median(nearest), rel=1e-9)
    assert noise_over(TRAIN, Score(), 0) is None
    with pytest.raises(ImpossibleError, match=r"score.noise is a share of the median distance .* which is 0"):
        noise_over(np.repeat(TRAIN[:3], 3, axis=0), Score(noise=0.5), 0)


@pytest.mark.parametrize("k", [1, 4, N - 1])
def test_pairs_of_neighbours_are_all_of_them_once(k: int) -> None:
    order = np.argsort(np.where(np.eye(N, dtype=bool), np.inf, GAPS), axis=1)[:, :k]
    want = sorted({(min(i, j), max(i, j)) for i in range(N) for j in order[i].tolist()})
    assert neighbour_pairs(TRAIN, k, 0).tolist() == [list(pair) for pair in want]


def test_of_equally_near_ones_the_lower_number_is_the_neighbour() -> None:
    z = np.array([[0.0], [1.0], [-1.0], [5.0]], np.float32)
    assert neighbour_pairs(z, 1, 0).tolist() == [[0, 1], [0, 2], [1, 3]]


def test_the_neighbours_plan_goes_through_its_pairs_before_any_comes_again() -> None:
    pairs = neighbour_pairs(TRAIN, 3, 7)
    score = Score(plan="neighbours", neighbours=3, alphas=(0.25, 0.5), n_candidates=2 * len(pairs))
    found = Plan.of(TRAIN, score, 7).candidates(0, 2 * len(pairs))
    drawn = np.stack([found.i, found.j], axis=1)
    assert (drawn[::2] == drawn[1::2]).all()
    assert found.alpha.tolist() == [0.25, 0.5] * len(pairs)
    assert sorted(drawn[::2].tolist()) == pairs.tolist()
    assert drawn[::2].tolist() != pairs.tolist()  # not in their order: a few of many are of all
    with pytest.raises(ImpossibleError, match=rf"have {len(pairs)} pairs with their 3 nearest, {2 * len(pairs)} cand"):
        Plan.of(TRAIN, score.model_copy(update={"n_candidates": 2 * len(pairs) + 1}), 7)
    with pytest.raises(ImpossibleError, match=r"score.neighbours = 60: a latent has 59 others among 60"):
        Plan.of(TRAIN, Score(plan="neighbours", neighbours=60), 7)


def test_single_latents_come_equally_often() -> None:
    found = Plan.of(TRAIN, Score(plan="single", noise=0.5), 7).candidates(0, 4 * N + 10)
    assert (found.i == found.j).all()
    assert set(found.alpha.tolist()) == {0.0}
    times = np.bincount(found.i, minlength=N)
    assert sorted(times.tolist()) == [4] * (N - 10) + [5] * 10
    assert times[:10].tolist() != [5] * 10


@pytest.mark.parametrize("plan", ["random", "neighbours", "single"])
def test_every_range_is_the_same_plan(plan: str) -> None:
    made = Plan.of(TRAIN, Score(plan=plan, neighbours=4, noise=0.5, alphas=(0.2, 0.4, 0.9)), 7)
    whole = made.candidates(0, 500)
    for start, stop in itertools.pairwise([0, 1, 7, 123, 500]):
        some = made.candidates(start, stop)
        for name in ("id", "i", "j", "alpha"):
            assert (getattr(some, name) == getattr(whole, name)[start:stop]).all()
    if plan == "random":
        assert (whole.i == candidates(N, (0.2, 0.4, 0.9), 0, 500, 7).i).all()


@pytest.mark.parametrize("plan", ["random", "neighbours", "single"])
@pytest.mark.parametrize("shard", [N, 17])
def test_scores_of_noisy_candidates_are_brute_force(plan: str, shard: int) -> None:
    made = Plan.of(TRAIN, Score(plan=plan, neighbours=4, noise=0.8, alphas=(0.2, 0.5)), 7)
    some, sigmas = made.candidates(0, 150), [0.05, 0.6, 4.0]
    assert made.noise is not None
    z64 = TRAIN.astype(np.float64)
    points = interpolate(TRAIN, some.i, some.j, some.alpha, "linear", made.noise, some.id)
    exact = (1 - some.alpha[:, None]) * z64[some.i] + some.alpha[:, None] * z64[some.j]
    np.testing.assert_allclose(points, exact + made.noise.of(some.id, D), atol=1e-6)
    rows, local, _ = parents_of(np.stack([some.i, some.j], axis=1))
    work = Work.at_points(np.stack([some.i, some.j], axis=1), TRAIN[rows], local, points, sigmas)
    parts = [part(Frame.over(TRAIN), work, TRAIN[rows], rows.start) for rows in cut(N, shard)]
    found = scores(work, parts, N)
    for s, sigma in enumerate(sigmas):
        x = lds_oracles.log_kernel(TRAIN, points, sigma)
        others = x.copy()
        own = np.zeros_like(x, bool)
        own[np.arange(150), some.i] = own[np.arange(150), some.j] = True
        others[own] = -np.inf
        whole = logsumexp(x, axis=1)
        tolerance = {"rtol": 0, "atol": 1e-4}
        np.testing.assert_allclose(found.log_lds[:, 0, s], np.minimum(whole - np.log(N), 0), **tolerance)
        np.testing.assert_allclose(
            found.log_lds_excluding_parents[:, 0, s], logsumexp(others, axis=1) - np.log(N), **tolerance
        )
        share = np.exp(logsumexp(np.where(own, x, -np.inf), axis=1) - whole)
        np.testing.assert_allclose(found.parent_share[:, 0, s], share, rtol=0, atol=1e-4)
        np.testing.assert_allclose(
            found.effective_neighbours[:, 0, s], np.exp(2 * whole - logsumexp(2 * x, axis=1)), rtol=1e-3
        )


def config(*overrides: str) -> Config:
    return load_config(None, ["run_dir=r", "data.source=s", *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["score.plan=single"], "plan: single is noise about single latents; set noise above 0"),
        (["score.noise=0.5", "score.interpolation=slerp"], "noise does not go with interpolation: slerp"),
        (["score.noise=0.5", "score.backend=faiss"], "noise does not go with backend: faiss"),
        (["score.noise=0.5", "score.plan=blocks"], "noise does not go with plan: blocks"),
        (["score.noise=-1"], "score.noise must be at least 0"),
        (["score.plan=neighbours", "score.sigma.rule=parent_share"], "parent_share looks at random pairs"),
    ],
)
def test_what_cannot_be_is_told(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(*overrides)
