"""The page: complete, self-contained, escaped, and true to the manifest."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ldsaug_ray.domains.images import image_array
from ldsaug_ray.lds import SIGMA_RULES, sentences
from ldsaug_ray.lds.sigma.rule import sigma_sentence
from ldsaug_ray.models import decode_images, load_vae
from ldsaug_ray.models.priors import Normal
from ldsaug_ray.report import ReportData, gather, page_digest, pictures_of, report_page
from ldsaug_ray.report.data import Curve, Estimate
from ldsaug_ray.report.numbers import count, log_text, percent, power
from ldsaug_ray.report.sheets import tiles
from ldsaug_ray.report.words import bandwidth_sentence, estimate_sentences, sharpness_sentences, typeset
from ldsaug_ray.selection import PAPER_TAU
from ldsaug_ray.stages import report
from ldsaug_ray.stages.shared.job import Job

SECTIONS = ["findings", "flow", "threshold", "alpha", "neighbours", "bands", "selected", "explore"]
SECTIONS += ["attributes", "model", "settings"]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, text, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack and "script" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def digits(digits_job: Job) -> ReportData:
    return gather(digits_job.run, digits_job.config)


@pytest.fixture(scope="module")
def folder(folder_job: Job) -> ReportData:
    return gather(folder_job.run, folder_job.config)


@pytest.fixture(scope="module")
def rules(rules_job: Job) -> ReportData:
    return gather(rules_job.run, rules_job.config)


@pytest.fixture(scope="module")
def control(control_job: Job) -> ReportData:
    return gather(control_job.run, control_job.config)


@pytest.fixture(scope="module")
def html() -> Callable[[ReportData], str]:
    """html(data) -> the page of a run as it is, which is made once."""
    return cache(report_page)


@pytest.fixture(scope="module", params=["digits", "folder", "rules"])
def page(request: pytest.FixtureRequest, html) -> Page:
    return Page(html(request.getfixturevalue(request.param)))


def test_sections_are_there_with_headings(page: Page) -> None:
    assert [a["id"] for a in page.all("section")] == SECTIONS
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert {a["aria-labelledby"] for a in page.all("section")} <= ids
    assert {str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")} == set(SECTIONS)
    assert len(page.all("h1")) == 1
    assert len(page.all("h2")) == len(SECTIONS)


def test_pictures_have_alt_text_and_open(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) > 10
    for picture in pictures:
        assert len(str(picture["alt"])) > 20
        kind, content = str(picture["src"]).split(";base64,")
        data = base64.b64decode(content, validate=True)
        if kind == "data:image/png":
            Image.open(io.BytesIO(data)).verify()
        else:
            assert kind == "data:image/svg+xml"
            assert b"<svg" in data
            assert b"<image" not in data


def test_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert name not in attributes or str(attributes[name]).startswith(("data:", "#"))
    assert "http" not in page.text
    assert page.all("script") == [{"type": "application/json", "id": "explorer-data"}, {}]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")


def test_css_loads_nothing(digits: ReportData, html) -> None:
    css = html(digits).partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in css
    assert "url(" not in css
    assert "@import" not in css


def test_numbers_are_those_of_the_manifest(digits_job: Job, digits: ReportData, html) -> None:
    text = Page(html(digits)).text
    for name, entry in digits_job.run.manifest["stages"].items():
        if name == "report":
            continue
        cells = [entry[k] for k in ("rows_in", "rows_out", "rows_dropped", "rows_quarantined")]
        assert f"{name} {' '.join(count(n) for n in cells)}" in text
        assert entry["digest"] in text
    select, score = digits_job.run.require("select"), digits_job.run.require("score")
    assert power(select["threshold_log_lds"]) in text
    assert f"{count(select['rows_out'])} of the candidates" not in text
    assert f"σ = {score['sigma']:.4g}" in text
    assert "64 were done" in text
    assert all(typeset(s) in text for s in sentences(digits.regime))


def test_every_rule_shows_its_number(rules_job: Job, rules: ReportData, html) -> None:
    text = Page(html(rules)).text
    score, select = rules_job.run.require("score"), rules_job.run.require("select")
    reached = score["sigma_numbers"]["share"]
    assert reached == pytest.approx(0.2, abs=0.01)
    assert f"where the own parents hold {percent(reached)} of a typical candidate’s density, by 512 pairs" in text
    held_out, band = score["held_out"], select["typical_log_lds"]
    assert f"{held_out['count']} held-out real latents have a median log LDS of {log_text(held_out['median'])}" in text
    assert f"τ = auto came out as LDS = {power(select['auto_log_lds'])}" in text
    assert f"from log LDS {log_text(band['least'], 3)} to {log_text(band['most'], 3)}: at least 50%" in text
    assert "promised of latents of real images alone, not of interpolants" in text
    for rule, n in select["rules"].items():
        assert f"which keeps {count(n)}" in text
        assert f"{rule} = " in text
    assert f"Together they keep {count(select['rows_out'])}." in text
    assert "tau = auto, typical = 0.5, top_fraction = 0.9 within each α; own parents counted" in text
    assert f"Central 95% of held-out real latents: {log_text(held_out['low'])}" in html(rules)
    kept = np.concatenate([f.read_table()["log_lds"] for f in rules_job.run.folder("selected").files(".parquet")])
    assert band["least"] <= kept.min() <= kept.max() <= band["most"]


@pytest.mark.parametrize(
    ("rule", "numbers", "words"),
    [
        ("fixed", {}, "fixed in the settings: 2 × the mean norm"),
        (
            "leave_one_out",
            {"log_likelihood": -673.1288, "sampled_latents": 2048},
            "the likeliest for 2,048 latents among the others (leave-one-out, −673.13 nats a latent): 2 ×",
        ),
        (
            "nearest_neighbour",
            {"scale": 0.5, "median_distance": 19.4574, "sampled_latents": 100},
            "0.5 × the median distance to the nearest other latent, 19.46, of 100 latents: 2 ×",
        ),
        ("norm_fraction", {"scale": 2.0}, "2 × the mean norm of the 120 training latents"),
    ],
)
def test_the_rule_of_the_bandwidth(digits: ReportData, rule: str, numbers: dict[str, float], words: str) -> None:
    sigma, told = 2 * digits.bandwidth.mean_norm, SIGMA_RULES.get(rule).sentence(numbers)
    assert sigma_sentence({"sigma_rule": rule, "sigma_numbers": numbers}) == told  # a manifest of before
    changed = replace(digits, bandwidth=replace(digits.bandwidth, sigma=sigma, sentence=told))
    assert words in bandwidth_sentence(changed)


def test_paper_threshold_is_counted_over_all_candidates(digits_job: Job, digits: ReportData, html) -> None:
    scores = np.concatenate(
        [f.read_table(["log_lds"])["log_lds"].to_numpy() for f in digits_job.run.folder("scores").files(".parquet")]
    )
    above = int((np.exp(scores) > PAPER_TAU).sum())
    assert digits.scores.n_above_paper == above
    text = Page(html(digits)).text
    kept = f"would have kept {count(above)} of" if above else "would have kept none of"
    assert f"With τ = 0.28 this run {kept} 1,500 candidates" in text


def test_selected_list_can_be_downloaded(digits_job: Job, digits: ReportData, html) -> None:
    link = next(a for a in Page(html(digits)).all("a") if "download" in a)
    assert link["download"] == "selected.csv"
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(str(link["href"]).split(",")[1]).decode())))
    stored = [r for f in digits_job.run.folder("selected").files(".parquet") for r in f.read_table().to_pylist()]
    assert len(rows) == len(stored) == 300
    for row, want in zip(rows, sorted(stored, key=lambda r: r["candidate"]), strict=True):
        assert int(row["candidate"]) == want["candidate"]
        assert (row["parent_i"], row["parent_j"]) == (want["parent_i"], want["parent_j"])
        assert (float(row["alpha"]), float(row["log_lds"])) == (want["alpha"], want["log_lds"])


def test_long_list_is_not_embedded(digits: ReportData) -> None:
    found = Page(report_page(replace(digits, selected_csv=None)))
    assert not [a for a in found.all("a") if "download" in a]
    assert "too long to embed" in found.text


def test_hostile_names_are_text(folder: ReportData, html) -> None:
    text = html(folder)
    assert text.count("<script") == 2  # the explorer's
    assert "<img src=x" not in text
    assert "<b>bold" not in text
    page = Page(text)
    assert "<b>bold" in page.text
    assert "<img src=x onerror=alert(2)>.png" in page.text  # quarantined
    assert "<script>alert(1)</script>.png" in page.text  # a parent of some candidate shown


def test_what_is_missing_is_said(folder: ReportData, html) -> None:
    text = Page(html(folder)).text
    assert "finetune not run" in text
    assert "there is no fine-tuned model" in text
    assert "have no attributes" in text
    assert "There are no test images, so these are training images." in text
    assert "1 image could not be used." in text
    assert "(CSV, 1 row)" in text
    assert "own two parents left out" in text


def test_a_sample_is_announced(digits: ReportData, html) -> None:
    assert "drawn without regard to their score" not in html(digits)
    sampled = replace(digits, scores=replace(digits.scores, n_total=3_000_000))
    assert "1,500 of the 3,000,000 candidates, drawn without regard to their score" in report_page(sampled)


def test_same_run_same_page(digits_job: Job, digits: ReportData) -> None:
    again = gather(digits_job.run, digits_job.config)
    pictures = pictures_of(digits)
    assert pictures_of(again) == pictures
    assert report_page(again) == report_page(digits, pictures)
    other = replace(digits, stages=tuple(replace(s, seconds=9.0, rate=1.0, resumed="x") for s in digits.stages))
    assert page_digest(other, pictures) == page_digest(digits, pictures)
    assert report_page(other, pictures) != report_page(digits, pictures)
    assert page_digest(replace(digits, n_test=1), pictures) != page_digest(digits, pictures)


def test_stage_writes_page_and_figures(folder_job: Job) -> None:
    outcome = report.run(folder_job, {})
    outcome.counts.check("report")
    assert (outcome.counts.rows_in, outcome.counts.rows_out) == (1, 1)
    folder = folder_job.run.folder("report")
    assert (folder / "index.html").read_text().startswith("<!doctype html>")
    names = {f.name for f in (folder / "figures").files()}
    assert {"density.svg", "by-alpha.svg", "alpha-share.svg", "band-1.png", "selected-001.png"} <= names
    assert len(names) == outcome.facts["figures"]
    assert report.run(folder_job, {}).digest == outcome.digest


def test_estimated_scores_are_called_that(digits: ReportData) -> None:
    assert estimate_sentences(digits) == []
    flat, ivf = (estimate_sentences(replace(digits, estimate=Estimate(kind, 0.3))) for kind in ("flat", "ivf"))
    assert "FAISS (flat)" in flat[0]
    assert "an interval 0.3 wide" in flat[0]
    assert flat[1:] == []
    assert "not certain" in ivf[1]


def test_controls_say_what_they_are_and_claim_no_threshold(control: ReportData) -> None:
    html = report_page(control)
    page = Page(html)
    assert [a["id"] for a in page.all("section")] == SECTIONS
    assert all(len(str(p["alt"])) > 20 for p in page.all("img"))
    assert control.threshold.log is None
    assert "No threshold was applied" in html
    for claim in ("The least dense candidate", "The threshold is", "The threshold of this run", "The densest 300"):
        assert claim not in page.text
    if control.threshold.which == "none":
        assert "kept 0 of 1,500 candidates: select.which is none, so that there is no A." in page.text
        assert "Selected 0 0% of the candidates" in page.text
        assert "of the selected" not in page.text
        assert not control.picks
        assert control.sharpness is None
    else:
        assert "kept 300 of 1,500 candidates, drawn at random: as many as top_fraction keeps, no threshold" in page.text
        assert "The rules alone would keep: top_fraction = 0.2, 300." in page.text
        assert "evenly spread from the densest to the least dense" in page.text


def test_sharpness_is_that_of_the_images_themselves(digits_job: Job, digits: ReportData, html) -> None:
    run = digits_job.run
    made = np.concatenate([f.read_table()["sharpness"].to_numpy() for f in run.folder("augmented").files(".parquet")])
    real = [
        ndimage.laplace(x @ np.array([0.299, 0.587, 0.114]), mode="nearest").var()
        for f in run.folder("images").files(".parquet")
        if f.name.startswith("test-")
        for x in image_array(f.read_table()).astype(np.float64)
    ]
    found = digits.sharpness
    assert found is not None
    assert (found.n_augmented, found.n_decoded, found.n_real, found.least) == (300, 300, 24, None)
    np.testing.assert_allclose(found.augmented, np.quantile(made, [0.25, 0.5, 0.75]))
    np.testing.assert_allclose(found.real, np.quantile(real, [0.25, 0.5, 0.75]))
    ratio = found.augmented[1] / found.real[1]
    assert ratio < 0.95
    text = Page(html(digits)).text
    assert f"Decoded images are blurrier: their median is {percent(ratio)} of that of real ones." in text
    assert "were dropped as less sharp" not in text
    filtered = replace(found, n_decoded=500, least=1.5)
    assert "200 of 500 decoded images were dropped" in " ".join(
        sharpness_sentences(replace(digits, sharpness=filtered))
    )


def test_samples_are_the_same_latents_before_and_after(digits_job: Job, digits: ReportData, html) -> None:
    z = Normal(16).sample(0, 6, 0)
    for stage, shown in (("train", digits.prior_samples.before), ("finetune", digits.prior_samples.after)):
        vae = load_vae(digits_job.run.folder(f"{stage}/vae.safetensors"))
        np.testing.assert_array_equal(shown, tiles(decode_images(vae, z, 16)))
    pictures = {a["alt"] for a in Page(html(digits)).all("img")}
    assert "The images that the fine-tuned VAE decodes from the same 6 random latents, in the same places." in pictures


def test_every_term_of_the_curves_has_its_panel(digits: ReportData) -> None:
    first = tuple({**p, "discriminator": 1.0, "beta": 0.5} for p in digits.curves[0].points[3:])
    second = ({"step": 4, "real_logit": -0.5, "my_term": 2.0}, {"step": 8, "loss": 1.0, "real_logit": 0.25})
    changed = replace(digits, curves=(Curve("train", first), Curve("finetune", second)))
    terms = {name for p in (*first, *second) for name in p} - {"step"}
    pictures = pictures_of(changed)
    assert {n for n in pictures if n.startswith("curve-")} == {f"curve-{t}.svg" for t in terms}
    page = Page(report_page(changed, pictures))
    assert "real logit: fine-tuning from -0.5 at step 4 to 0.25 at step 8." in {a.get("alt") for a in page.all("img")}
    for title in ("Logit of real images", "Weight β of the KL term", "My term", "Loss of the discriminator"):
        assert title in page.text
