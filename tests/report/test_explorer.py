"""The explorer: what its script keeps, in Chromium, is what `selection/` keeps with the settings that it shows."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from chromium import Browser, browser
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from stages_helpers import merge

from ldsaug_ray.config import Config
from ldsaug_ray.lds import Plan, interpolate
from ldsaug_ray.lds.shards import score_candidates
from ldsaug_ray.metrics.classes import effective_classes
from ldsaug_ray.models import Codec, load_vae
from ldsaug_ray.report import ReportData, explorer, gather, report_page
from ldsaug_ray.report.data import Scores
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import Latents
from ldsaug_ray.selection import select
from ldsaug_ray.selection.balance import counted, grouping, nearer
from ldsaug_ray.stages.shared.job import Job

N, M, D, SIGMA = 60, 1800, 16, 1.5
HASHES = [
    "",
    "share=0.07",
    "share=0.05&balance=parent",
    "share=0.131&balance=cluster&stratify=true",
    "share=0.0303&balance=label:kind&exclude=true",
    "share=0.111&balance=label:kind&low=2&high=6&stratify=true",
    "share=0.25&stratify=true&exclude=true&sigma=0",
    "share=0.0001&balance=parent&sigma=2",
    "by=tau&tau=0.011",
    "by=tau&tau=0.00000001&sigma=0&low=3&high=3",
]


@pytest.fixture(scope="module")
def base(digits_job: Job) -> dict[str, Any]:
    return {
        **digits_job.config.dump(),
        "score": {"n_candidates": M},
        "select": {"top_fraction": 0.2, "clusters": 7},
        "report": {"sigmas": [0.5, 2.0]},
        "seed": 2**32 - 3,
    }


@pytest.fixture(scope="module")
def latents() -> Latents:
    rng = np.random.default_rng(5)
    kinds = rng.choice(3, N, p=[0.6, 0.3, 0.1])
    z = (3 * kinds[:, None] * (np.arange(D) == 0) + rng.normal(size=(N, D))).astype(np.float32)
    partly = np.where(rng.random(N) < 0.2, 0, rng.choice([1, -1], N))
    labels = np.stack([kinds + 1, partly], axis=1).astype(np.int32)
    return Latents(pa.array([f"k{n:03d}" for n in range(N)]), z, ("kind", "glad"), labels, frozenset({"kind"}))


Made = tuple[Config, Latents, Scores, RunDir, Codec, None, float]  # arguments of `explorer_of`


@pytest.fixture(scope="module")
def made(digits_job: Job, base: dict[str, Any], latents: Latents) -> Made:
    config = Config.model_validate(merge(base, {"evaluate": {"attributes": ["glad"]}}))
    plan = Plan.of(latents.z, config.score, config.seed).candidates(0, M)
    z = interpolate(latents.z, plan.i, plan.j, plan.alpha, "linear")
    found = score_candidates(latents.z, np.stack([plan.i, plan.j], axis=1), z, [SIGMA])
    columns = [getattr(found, name)[:, 0] for name in found.__dataclass_fields__]
    kept = columns[0] >= np.quantile(columns[0], 0.8)
    scores = Scores(M, 0, float(columns[0].max()), plan.id, plan.i, plan.j, plan.alpha, *columns, kept)
    run = digits_job.run
    return config, latents, scores, run, load_vae(run.folder("train/vae.safetensors")), None, SIGMA


@pytest.fixture(scope="module")
def shown(digits_job: Job, made: Made) -> ReportData:
    """The page of the digits with an explorer of other candidates."""
    return replace(gather(digits_job.run, digits_job.config), explorer=explorer.explorer_of(*made))


def _kept(base: dict[str, Any], latents: Latents, pasted: str) -> tuple[np.ndarray, float, np.ndarray]:
    """Candidates, least score and alphas that `selection/` keeps with the settings of the page."""
    config = Config.model_validate(merge(base, yaml.safe_load(pasted) or {}))
    made = Plan.of(latents.z, Config.model_validate(base).score, config.seed).candidates(0, M)
    among = np.flatnonzero(np.isin(made.alpha, config.score.alphas))
    assert config.score.n_candidates == len(among)
    i, j, alpha = made.i[among], made.j[among], made.alpha[among]
    sigma = config.score.sigma.value or SIGMA
    z = interpolate(latents.z, i, j, alpha, "linear")
    found = score_candidates(latents.z, np.stack([i, j], axis=1), z, [sigma])
    score = (found.log_lds_excluding_parents if config.select.exclude_parents else found.log_lds)[:, 0]
    ids, groups, chunk = np.arange(len(among)), None, []
    if config.select.balance != "none":
        labels = {"kind": latents.attributes[:, 0] - 1}
        of = grouping(
            config.select.balance, latents.z, latents.keys.to_pylist(), labels, clusters=7, seed=config.seed, missing=-1
        )
        chunk = [of.of[np.where(nearer(made.id[among], alpha, config.seed), j, i)]]
        strata = len(config.score.alphas) if config.select.stratify else 1
        groups = counted([(ids, chunk[0])], len(of.names), strata)
    chosen = select(
        [(ids, score, *chunk)],
        len(ids),
        config.select,
        n_alphas=len(config.score.alphas),
        groups=groups,
        seed=config.seed,
    )
    return among[chosen.ids], float(score[chosen.ids].min()), alpha[chosen.ids]


def test_script_keeps_what_selection_keeps(
    base: dict[str, Any], latents: Latents, shown: ReportData, tmp_path: Path
) -> None:
    page = tmp_path / "index.html"
    page.write_text(report_page(shown), encoding="utf-8")
    asyncio.run(_compare(page, tmp_path / "profile", base, latents, shown))


async def _compare(page: Path, profile: Path, base: dict[str, Any], latents: Latents, shown: ReportData) -> None:
    async with browser(page, profile, width=400) as chromium:
        for fragment in HASHES:
            await chromium.js(
                f"location.hash = '#explore?by=share&stratify=false&exclude=false&balance=none&low=0&"
                f"high=8&sigma=1&share=0.2&{fragment}'"
            )
            text = await _texts(chromium)
            rows, least, alpha = _kept(base, latents, text["yaml"])
            assert text["kept"] == f"{len(rows):,}", fragment
            assert text["least"].replace("−", "-") == f"{least:.3f}", fragment
            share = {a: np.isclose(alpha, a).mean() for a in (m / 10 for m in range(1, 10))}
            told = [re.match(r"(\S+): (\S+)%", line) for line in text["alphas"]]
            assert {float(m[1]): float(m[2]) for m in told if m} == pytest.approx(
                {a: 100 * s for a, s in share.items()}, rel=5e-3
            ), fragment
            pictures = {int(alt.split()[1].rstrip(",")) for alt in text["pictures"]}
            assert pictures <= set(rows.tolist())
            assert len(pictures) == min(24, len(set(shown.explorer.shown) & set(rows.tolist())))
        kinds = latents.attributes[:, 0] - 1
        true = effective_classes(np.bincount(kinds) / N)
        assert f"of the training split’s {true:.1f}" in await chromium.js("byId('explorer-label-0')")
        assert await chromium.js("document.documentElement.scrollWidth") <= 400
        unnamed = "[...document.querySelectorAll('#explore input, #explore select')].filter((x) => !x.labels.length)"
        assert await chromium.js(f"{unnamed}.length") == 0
        await chromium.js("document.getElementById('explorer-low').focus()")
        await chromium.js("location.hash = '#explore?by=share&share=0.2&low=0&high=8&sigma=1'")
        await chromium.key("ArrowRight")
        rows, *_ = _kept(base, latents, (text := await _texts(chromium))["yaml"])
        assert text["kept"] == f"{len(rows):,}" == "320"  # a fifth of eight alphas of nine
        assert chromium.complaints == []


async def _texts(chromium: Browser) -> dict[str, Any]:
    await chromium.js("globalThis.byId = (id) => document.getElementById(id).textContent")
    lines = "[...document.querySelectorAll('#explorer-alphas li')].map((x) => x.textContent)"
    alts = "[...document.querySelectorAll('#explorer-sheet li:not([hidden]) img')].map((x) => x.alt)"
    ids = ", ".join(f"{name}: byId('explorer-{name}')" for name in ("kept", "least", "yaml", "command"))
    return dict(await chromium.js(f"{{{ids}, alphas: {lines}, pictures: {alts}}}"))


def test_of_many_candidates_a_sample_is_explored(
    shown: ReportData, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown.explorer.sampled is None
    assert "random sample of" not in report_page(shown)
    monkeypatch.setattr(explorer, "EXPLORED", 400)
    some = explorer.explorer_of(*made)
    assert some.payload == explorer.explorer_of(*made).payload
    assert some.sampled == 400
    scores = np.frombuffer(base64.b64decode(some.payload["sigmas"][1]["log_lds"]), "<f4")
    assert len(scores) == 400
    assert set(scores) < set(np.float32(made[2].log_lds))
    page = report_page(replace(shown, scores=made[2], explorer=some))
    assert f"By a random sample of 400 of the 1,800 candidates (seed {2**32 - 3}); counts are scaled up." in page


def test_a_run_without_labels_says_how_to_have_some(shown: ReportData, made: Made) -> None:
    config, latents, *rest = made
    bare = replace(latents, attribute_names=(), attributes=latents.attributes[:, :0], categorical=frozenset())
    page = report_page(replace(shown, explorer=explorer.explorer_of(config, bare, *rest)))
    assert "No labels to count: <code>evaluate.attributes</code> names those of interest" in page
    none = replace(shown.parents, attributes=(), n_attributes=0)
    page = report_page(replace(shown, parents=none, explorer=explorer.explorer_of(config, bare, *rest)))
    assert "No labels to count: the images of this run have none; <code>data.attributes</code> names" in page


def test_further_bandwidths_are_scored(made: Made, shown: ReportData) -> None:
    at, (_, latents, scores, *_) = shown.explorer.payload["sigmas"], made
    assert [s["sigma"] for s in at] == [SIGMA / 2, SIGMA, 2 * SIGMA]
    z = interpolate(latents.z, scores.parent_i, scores.parent_j, scores.alpha, "linear")
    squares = cdist(z.astype(np.float64), latents.z.astype(np.float64), "sqeuclidean")
    for s in at:
        got = np.frombuffer(base64.b64decode(s["log_lds"]), "<f4")
        want = logsumexp(-squares / (2 * s["sigma"] ** 2), axis=1) - np.log(N)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_what_balance_keeps_has_pictures_too(made: Made, shown: ReportData) -> None:
    _, _, scores, *_ = made
    near = np.where(nearer(scores.candidate, scores.alpha, 0), scores.parent_j, scores.parent_i)
    ranks = explorer._ranks_within(scores.log_lds, near)
    for group in np.unique(near):
        rows = np.flatnonzero(near == group)
        assert np.argsort(ranks[rows]).tolist() == np.argsort(-scores.log_lds[rows], kind="stable").tolist()
        assert np.sort(ranks[rows]) == pytest.approx((np.arange(len(rows)) + 0.5) / len(rows))
    decoded = np.array(shown.explorer.payload["shown"])
    assert (ranks[decoded] < 0.1).sum() >= 2 * explorer.EACH
