"""The rules for sigma against brute force, scikit-learn and closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from lds_oracles import log_kernel
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity, NearestNeighbors

from ldsaug_ray.config import Score, Sigma
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.lds import plan_pairs, resolve_sigma, score_leave_one_out, score_pairs, sigma_from_norm
from ldsaug_ray.lds.sigma import sample
from ldsaug_ray.lds.sigma.parent_share import SAMPLED_PAIRS
from ldsaug_ray.lds.sigma.sample import nearest_distances

rng = np.random.default_rng(0)


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def with_sigma(**settings: object) -> Score:
    return Score.model_validate({"sigma": settings})


def log_likelihood(z: np.ndarray, sigma: float) -> float:
    """Mean log p_-k(z_k), by brute force in float64."""
    n, d = z.shape
    w = log_kernel(z, z, sigma)
    np.fill_diagonal(w, -np.inf)
    return float((logsumexp(w, axis=1) - math.log(n - 1)).mean()) - d / 2 * math.log(2 * math.pi * sigma**2)


# Fractions of the norm


def test_sigma_is_a_fraction_of_the_mean_norm() -> None:
    z = (rng.standard_normal((500, 9)) + 3).astype(np.float32)
    want = 0.2 * np.mean([np.linalg.norm(row) for row in z.astype(np.float64)])
    assert sigma_from_norm(z) == pytest.approx(want, rel=1e-12)
    assert sigma_from_norm(z, scale=1.5) == pytest.approx(7.5 * want, rel=1e-12)
    assert sigma_from_norm(np.full((5, 3), 1e-30, np.float32)) == pytest.approx(0.2 * 3**0.5 * 1e-30, rel=1e-6)
    assert resolve_sigma(z, Score()).sigma == pytest.approx(want, rel=1e-12)
    found = resolve_sigma(z, with_sigma(scale=0.4))
    assert (found.sigma, found.rule) == (pytest.approx(2 * want, rel=1e-12), "norm_fraction")
    assert found.numbers == {"scale": 0.4, "mean_norm": pytest.approx(5 * want, rel=1e-12)}
    fixed = resolve_sigma(z, with_sigma(rule="fixed", value=3.25))
    assert (fixed.sigma, fixed.rule, fixed.numbers) == (3.25, "fixed", {})


def test_sigma_of_collapsed_latents() -> None:
    with pytest.raises(InputError, match=r"all zero, and LDS would be 1 everywhere for any sigma; where the images"):
        sigma_from_norm(np.zeros((4, 3), np.float32))
    with pytest.raises(ConfigError, match="found 0"):
        sigma_from_norm(np.ones((4, 3)), scale=0)
    for rule in ("leave_one_out", "parent_share"):
        with pytest.raises(InputError, match=r"all 4 latents are equal, and .* where the images are alike"):
            resolve_sigma(np.ones((4, 3)), with_sigma(rule=rule))


@pytest.mark.parametrize(
    "given",
    [{"rule": "leave_one_out", "scale": 0.3}, {"share": 0.2}, {"rule": "parent_share", "value": 1.0}, {"value": 2.0}],
)
def test_a_field_of_another_rule_is_refused(given: dict) -> None:
    with pytest.raises(ValueError, match="belongs to rule"):
        Sigma.model_validate(given)


# Leave-one-out likelihood


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "d", "offset"), [(2, 1, 0), (60, 3, 0), (300, 40, 5)])
def test_leave_one_out_scores_against_brute_force(n: int, d: int, offset: float, dtype: str) -> None:
    z = gaussian(n, d) + np.float32(offset)
    rows = np.array([n - 1, 0, n // 2, 0])  # any order, repeats
    sigmas = [0.05 * math.sqrt(d), 0.3, 2.0]
    want = np.empty((len(rows), len(sigmas)))
    for m, row in enumerate(rows):
        others = np.delete(z, row, axis=0)
        want[m] = [logsumexp(log_kernel(others, z[row][None], s)[0]) - math.log(n - 1) for s in sigmas]
    got = score_leave_one_out(z, rows, sigmas, dtype=dtype, tile_rows=3, tile_latents=37)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 if dtype == "float32" else 1e-9)


def test_a_duplicate_is_another_latent() -> None:
    z = np.concatenate([gaussian(50, 4), gaussian(1, 4)])  # the last equals the first
    got = score_leave_one_out(z, [0, 50], [1e-3])
    np.testing.assert_allclose(got, -math.log(50), atol=1e-9)


def test_leave_one_out_against_sklearn() -> None:
    z, sigma = gaussian(80, 2), 0.4
    want = []
    for row in range(80):
        tree = KernelDensity(bandwidth=sigma, leaf_size=80, rtol=0, atol=0)
        want.append(tree.fit(np.delete(z, row, axis=0).astype(np.float64)).score_samples(z[row][None])[0])
    got = score_leave_one_out(z, np.arange(80), [sigma], dtype="float64")[:, 0] - math.log(2 * math.pi * sigma**2)
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize(("n", "d", "scale"), [(700, 1, 1.0), (700, 2, 100.0), (400, 64, 1e-3)])
def test_the_likeliest_sigma_is_that_of_a_dense_search(n: int, d: int, scale: float) -> None:
    z = gaussian(n, d) * np.float32(scale)
    found = resolve_sigma(z, with_sigma(rule="leave_one_out"))
    assert found.numbers["sampled_latents"] == n
    assert found.numbers["log_likelihood"] == pytest.approx(log_likelihood(z, found.sigma), abs=1e-3)
    around = found.sigma * np.geomspace(0.5, 2, 45)
    values = [log_likelihood(z, s) for s in around]
    assert found.sigma == pytest.approx(around[int(np.argmax(values))], rel=0.04)
    assert found.numbers["log_likelihood"] > max(values) - 1e-3 * d
    if d <= 2:  # Silverman's rule is the best for normal data; likelihood's optimum has a wide spread about it
        silverman = scale * (4 / (d + 2) / n) ** (1 / (d + 4))
        assert 0.5 < found.sigma / silverman < 1.6


def test_a_sample_of_many_latents_gives_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    z = gaussian(1000, 8)
    whole = resolve_sigma(z, with_sigma(rule="leave_one_out")).sigma
    monkeypatch.setattr(sample, "SAMPLED_LATENTS", 300)
    first, again, other = (resolve_sigma(z, with_sigma(rule="leave_one_out"), seed) for seed in (1, 1, 2))
    assert first == again
    assert first.numbers["log_likelihood"] != other.numbers["log_likelihood"]
    assert first.numbers["sampled_latents"] == 300
    assert first.sigma == pytest.approx(whole, rel=0.1)


def test_duplicates_leave_no_likeliest_sigma() -> None:
    z = np.repeat(gaussian(100, 6), 2, axis=0)
    with pytest.raises(
        ImpossibleError, match=r"still rises at sigma = .* 200 of 200 latents .* exact duplicate.*fixed"
    ):
        resolve_sigma(z, with_sigma(rule="leave_one_out"))
    with pytest.raises(ImpossibleError, match="the largest tried"):
        resolve_sigma(np.array([[0.0], [1.0]]), with_sigma(rule="leave_one_out"))


@pytest.mark.parametrize(
    ("rows", "text"), [([[0]], "rows must be 1-D"), ([9], r"rows\[0\] = 9"), ([0.5], "row numbers")]
)
def test_wrong_rows(rows: list, text: str) -> None:
    with pytest.raises(InputError, match=text):
        score_leave_one_out(gaussian(9, 2), rows, [1.0])
    with pytest.raises(InputError, match="at least 2"):
        score_leave_one_out(gaussian(1, 2), [0], [1.0])


# Nearest neighbours


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (400, 3), (300, 128)])
def test_nearest_distances_are_sklearns(n: int, d: int, offset: float) -> None:
    z = gaussian(n, d) + np.float32(offset)
    want = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(z.astype(np.float64)).kneighbors()[0][:, 0]
    np.testing.assert_allclose(nearest_distances(z, np.arange(n)), want, rtol=1e-9)
    found = resolve_sigma(z, with_sigma(rule="nearest_neighbour"))
    assert found.sigma == found.numbers["median_distance"] == pytest.approx(np.median(want), rel=1e-9)
    assert resolve_sigma(z, with_sigma(rule="nearest_neighbour", scale=0.5)).sigma == pytest.approx(found.sigma / 2)


def test_nearest_distances_of_extreme_size_and_of_near_duplicates() -> None:
    z = gaussian(40, 5).astype(np.float64)
    want = nearest_distances(z, np.arange(40))
    for size in (1e-30, 1e30):
        np.testing.assert_allclose(nearest_distances(z * size, np.arange(40)), want * size, rtol=1e-6)
    z[1::2] = z[::2] + 1e-5
    np.testing.assert_allclose(nearest_distances(z, np.arange(40)), 5**0.5 * 1e-5, rtol=1e-9)


def test_duplicates_have_no_nearest_neighbour() -> None:
    z = np.concatenate([np.tile(gaussian(20, 3), (3, 1)), gaussian(40, 3, 1)])  # 60 of 100 have two more like them
    distances = nearest_distances(z, np.arange(100))
    assert (distances == 0).sum() == 60
    with pytest.raises(ImpossibleError, match="60 of 100 latents looked at have an exact duplicate"):
        resolve_sigma(z, with_sigma(rule="nearest_neighbour"))
    with pytest.raises(InputError, match="at least 2"):
        resolve_sigma(z[:1], with_sigma(rule="nearest_neighbour"))


# The parents' share


@pytest.mark.parametrize("kind", ["linear", "slerp"])
@pytest.mark.parametrize(("n", "d", "wanted"), [(150, 2, [0.03]), (300, 64, [0.1, 0.5])])
def test_the_parents_hold_the_share(n: int, d: int, wanted: list[float], kind: str) -> None:
    z, seed = gaussian(n, d), 3
    for share in wanted:
        given = {"alphas": [0.25, 0.5], "interpolation": kind, "sigma": {"rule": "parent_share", "share": share}}
        found = resolve_sigma(z, Score.model_validate(given), seed)
        pairs = plan_pairs(n, SAMPLED_PAIRS, seed)
        shares = score_pairs(z, pairs, [0.25, 0.5], [found.sigma], interpolation=kind, dtype="float64").parent_share
        assert np.median(shares) == pytest.approx(share, abs=0.003)
        assert found.numbers["share"] == pytest.approx(np.median(shares), abs=1e-4)


def test_a_tenth_is_the_share_where_none_is_given() -> None:
    found = resolve_sigma(gaussian(300, 64), with_sigma(rule="parent_share"))
    assert found.numbers["share"] == pytest.approx(0.1, abs=0.003)


def test_a_share_that_no_sigma_gives() -> None:
    with pytest.raises(ImpossibleError, match=r"parent_share = 0.01 is not to be had.* hold 0\.\d+ to 1 of a typical"):
        resolve_sigma(gaussian(20, 32), with_sigma(rule="parent_share", share=0.01))


# Rules of the user's own

OWN = """
from ldsaug_ray.lds import SigmaRule
given = SigmaRule(
    {"scale": 0.5, "value": None},
    lambda z, given, score, seed: (given["scale"] * given["value"], {"dimensions": z.shape[1]}),
    lambda numbers: f"half, for {numbers['dimensions']} dimensions",
)
nothing = SigmaRule({}, lambda z, given, score, seed: (float("nan"), {}), str)
number = SigmaRule({}, lambda z, given, score, seed: 0.5, str)
fails = SigmaRule({}, lambda z, given, score, seed: 1 / 0, str)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sigmas_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_rule_of_the_users_own_has_its_fields_and_its_sentence() -> None:
    found = resolve_sigma(gaussian(9, 4), with_sigma(rule="sigmas_of_mine:given", value=3.0))
    assert (found.sigma, found.numbers, found.sentence) == (1.5, {"dimensions": 4}, "half, for 4 dimensions")
    assert resolve_sigma(gaussian(9, 4), with_sigma(rule="sigmas_of_mine:given", value=3.0, scale=2.0)).sigma == 6.0
    with pytest.raises(
        ImpossibleError, match="sigmas_of_mine:nothing gives sigma = nan; it must be positive and finite"
    ):
        resolve_sigma(gaussian(9, 4), with_sigma(rule="sigmas_of_mine:nothing"))
    for name, why in (("number", "TypeError: cannot unpack"), ("fails", "ZeroDivisionError: division by zero")):
        with pytest.raises(InputError, match=rf"score.sigma.rule sigmas_of_mine:{name} failed \({why}"):
            resolve_sigma(gaussian(9, 4), with_sigma(rule=f"sigmas_of_mine:{name}"))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rule": "sigmas_of_mine:given"}, "value is needed with rule: sigmas_of_mine:given"),
        ({"rule": "sigmas_of_mine:nothing", "share": 0.5}, "share belongs to rule: parent_share; leave it out"),
        ({"rule": "sigmas_of_mine:SigmaRule"}, r"cannot be used: TypeError: .* missing 3 required"),
        ({"rule": "numpy:pi"}, "sigma rule 'numpy:pi' is no SigmaRule but float"),
        ({"rule": "scot"}, "unknown sigma rule 'scot'; possible: fixed, leave_one_out, nearest_neighbour, norm_"),
    ],
)
def test_a_rule_that_cannot_be_used_is_told_before_work_starts(given: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        with_sigma(**given)
