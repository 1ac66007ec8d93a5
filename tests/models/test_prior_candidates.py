"""Priors that draw candidates, against their definition in float64: each latent equally often, the densest of some."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ldsaug_ray.config import Sampling
from ldsaug_ray.errors import LdsaugError
from ldsaug_ray.models.priors import PRIORS, Draws
from ldsaug_ray.models.priors.candidates import made

N, D = 40, 5
Z = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
NORM = float(np.linalg.norm(Z.astype(np.float64), axis=1).mean())
NEAREST = float(np.median(np.sort(cdist(Z, Z), axis=1)[:, 1]))


def draws(prior: str, latents: np.ndarray = Z, **candidates: Any) -> Draws:
    settings = Sampling.model_validate({"prior": prior, "candidates": candidates})
    return Draws(prior, PRIORS.get(prior).fit(latents, settings, 7), latents)


def all_log_lds(points: np.ndarray, sigma: float, without: np.ndarray | None = None) -> np.ndarray:
    weights = np.exp(-(cdist(points.astype(np.float64), Z.astype(np.float64)) ** 2) / (2 * sigma**2))
    if without is not None:
        weights[np.arange(len(points))[:, None], without] = 0
    return np.log(weights.sum(1) / N)


CASES = [
    ("interpolants", {}),
    ("interpolants", {"plan": "neighbours", "neighbours": 3, "noise": 0.4}),
    ("interpolants", {"plan": "single", "noise": 0.5}),
    ("lds", {}),
    ("lds", {"plan": "random", "of": 10, "keep": 0.2, "noise": 0, "exclude_parents": False}),
    ("lds", {"plan": "neighbours", "of": 8, "keep": 0.5, "noise": 0.3}),
]


@pytest.mark.parametrize(("prior", "candidates"), CASES)
def test_a_draw_depends_on_its_number_and_the_seed_alone(prior, candidates):
    made_by = draws(prior, **candidates)
    whole = made_by.sample(0, 2 * N + 3, 9)
    parts = [made_by.sample(a, b, 9) for a, b in pairwise([0, 1, 17, N, N + 1, 2 * N + 3])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (made_by.sample(0, N, 10) != whole[:N]).any(axis=1).mean() > 0.9
    assert made_by.sample(4, 4, 9).shape == (0, D)


@pytest.mark.parametrize("plan", ["random", "neighbours", "single"])
@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_candidates_lie_where_the_plan_says(plan, noise):
    if plan == "single" and not noise:
        return
    fitted = draws("interpolants", plan=plan, noise=noise, neighbours=4, alphas=[0.2, 0.5]).fitted
    ids = np.arange(4000)
    pairs, z = made(fitted, Z, ids % N, ids, 3)
    (base, other), z64 = pairs.T, Z.astype(np.float64)
    steps = np.array([0.0]) if plan == "single" else np.array([0.2, 0.5])
    spots = z64[base][:, None] + steps[None, :, None] * (z64[other] - z64[base])[:, None]
    off = np.abs(np.linalg.norm(z[:, None] - spots, axis=2) - noise * NEAREST)
    assert off.min(1).max() < 1e-5
    if plan != "single":
        assert abs((off.argmin(1) == 0).mean() - 0.5) < 0.05  # each alpha as likely
        assert (base != other).all()
    near = np.argsort(cdist(Z, Z), axis=1)[:, 1:5]
    possible = {"single": [{b} for b in range(N)], "neighbours": [set(r) for r in near.tolist()]}
    possible["random"] = [set(range(N)) - {b} for b in range(N)]
    found = [set(other[base == b].tolist()) for b in range(N)]
    assert all(f <= p for f, p in zip(found, possible[plan], strict=True))
    assert np.mean([len(f) / len(p) for f, p in zip(found, possible[plan], strict=True)]) > 0.9
    if noise:  # in every direction: means of the unit vectors vanish
        way = (z - spots[ids, off.argmin(1)]) / (noise * NEAREST)
        assert np.abs(way.mean(0)).max() < 5 / np.sqrt(D * len(ids))


def test_every_latent_is_a_base_equally_often():
    made_by = draws("interpolants", plan="single", noise=1e-3)
    nearest = cdist(made_by.sample(0, 3 * N, 1), Z).argmin(1)
    assert (np.bincount(nearest, minlength=N) == 3).all()
    assert (np.sort(nearest[:N]) == np.arange(N)).all()


@pytest.mark.parametrize(
    ("plan", "exclude"), [("single", True), ("single", False), ("random", True), ("neighbours", True)]
)
def test_lds_draws_the_densest_of_each_latent(plan, exclude):
    of, kept = 20, 5
    how = {
        "plan": plan,
        "of": of,
        "keep": kept / of,
        "exclude_parents": exclude,
        "scale": 1.1 / NORM,
    }
    made_by = draws("lds", noise=0.9, **how)
    assert made_by.fitted["kept"] == kept
    drawn = made_by.sample(0, 2 * kept * N, 2)  # two groups of each latent
    expected = set()
    for group in range(2 * N):
        ids = group * of + np.arange(of)
        pairs, z = made(made_by.fitted, Z, np.full(of, group % N), ids, 2)
        log_lds = all_log_lds(z, 1.1, pairs if exclude else None)
        expected |= {z[c].tobytes() for c in np.argsort(-log_lds)[:kept]}
    assert {z.tobytes() for z in drawn} == expected
    assert len(expected) == 2 * kept * N
    one = all_log_lds(drawn[:N], 1.1).mean()  # the first round is no denser than the others
    assert abs(one - all_log_lds(drawn, 1.1).mean()) < 4 * all_log_lds(drawn, 1.1).std() / np.sqrt(N)


@pytest.mark.parametrize(
    ("latents", "candidates", "words"),
    [
        (
            Z,
            {"plan": "neighbours", "neighbours": N},
            r"sample.candidates.neighbours = 40 needs more than the 40 latents",
        ),
        (Z[:1], {"plan": "random"}, r"sample.candidates.plan = random needs more than the 1 latents"),
        (Z[np.zeros(9, int)], {"plan": "single", "noise": 1}, r"sample.candidates.noise is a share .* which is 0"),
    ],
)
def test_what_cannot_be_drawn_is_said(latents, candidates, words):
    with pytest.raises(LdsaugError, match=words):
        draws("interpolants", latents, **candidates)


@pytest.mark.parametrize(
    ("prior", "candidates"),
    [
        ("interpolants", {"plan": "single", "noise": 0}),
        ("interpolants", {"plan": "single"}),
        ("lds", {"noise": 0}),
    ],
)
def test_single_latents_without_noise_are_no_candidates(prior, candidates):
    told = "candidates.noise: prior .* with plan: single is noise about latents; set it above 0"
    with pytest.raises(ValueError, match=told):
        Sampling.model_validate({"prior": prior, "candidates": candidates})
    Sampling.model_validate({"prior": "normal", "candidates": candidates})
