"""The sentences of the page that hold the run's numbers, and the alt texts of its pictures. Plain text throughout.

Long, since each finding is a sentence of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ldsaug_ray.metrics import Detection
from ldsaug_ray.models.priors import title_of
from ldsaug_ray.report.data import Band, Evaluation, Gallery, Pick, ReportData
from ldsaug_ray.report.numbers import MINUS, count, log_text, percent, power
from ldsaug_ray.selection import PAPER_TAU

Pairs = list[tuple[str, str]]


def headline(data: ReportData) -> str:
    """What the run did, in a sentence or two."""
    t, s, q = data.threshold, data.scores, data.sharpness
    found = (
        f"From {count(data.n_train)} training images, {count(s.n_total)} interpolated latents were scored by how "
        f"densely training latents lie around them. Selection {typeset(t.sentence)}."
    )
    if q is not None and q.n_augmented < t.n_selected:
        found += f" Of these the sharpest {count(q.n_augmented)}, once decoded, are augmentation A."
    on = "training images and A" if t.n_selected else "training images alone"
    done = f"was then trained further on {on}" if data.finetuned else "has not been trained further"
    return f"{found} The VAE {done}."


def typeset(sentence: str) -> str:
    """A sentence of `lds.sentences` with the page's α, minus signs and apostrophes."""
    sentence = re.sub(r"\balpha\b", "α", sentence)
    return re.sub(r"(?<=\s)-(?=[\s\d])", MINUS, sentence).replace("'s ", "’s ")


def threshold_sentences(data: ReportData) -> list[str]:
    """The threshold that came out, beside the paper's."""
    t, s = data.threshold, data.scores
    found = _applied(data)
    if t.log is not None:
        found.append(f"The paper’s τ is {PAPER_TAU}. {_ratio(t.log - math.log(PAPER_TAU))}")
    if s.n_above_paper:
        found.append(
            f"With τ = {PAPER_TAU} this run would have kept {count(s.n_above_paper)} of {count(s.n_total)} candidates "
            f"({percent(s.n_above_paper / s.n_total)})."
        )
    else:
        found.append(
            f"With τ = {PAPER_TAU} this run would have kept none of {count(s.n_total)} candidates: "
            f"the largest LDS is {power(s.max_log)}."
        )
    return found


def _applied(data: ReportData) -> list[str]:
    """The threshold of the run, or why there is none."""
    t = data.threshold
    if not t.n_selected:
        return [f"Nothing was selected, as select.which: {t.which} asks: no rule and no threshold was applied."]
    if t.log is None:
        numbers = [f"{rule}, {count(n)}" for rule, n in zip(_named(data, t.rules), t.rules.values(), strict=True)]
        would = f" The rules alone would keep: {'; '.join(numbers)}." if numbers else ""
        return [f"No threshold was applied: select.which: {t.which} {typeset(t.sentence)}.{would}"]
    rank = "" if t.ranked_by == "log_lds" else " (own two parents left out, as select.exclude_parents asks)"
    return [
        f"The least dense candidate that was kept has LDS = {power(t.log)}, log LDS = {log_text(t.log, 3)}{rank}. "
        f"{_rules(data)}"
    ]


def held_out_sentences(data: ReportData) -> list[str]:
    """Where held-out real latents lie, and the rules of select that go by them; none without test images."""
    h, t, select = data.held_out, data.threshold, data.config["select"]
    if h is None:
        return []
    found = [
        f"{count(h.count)} held-out real latents have a median log LDS of {log_text(h.median)}; the central 95% of "
        f"them lie between {log_text(h.low)} and {log_text(h.high)}."
    ]
    if t.auto_log is not None:
        found.append(
            f"τ = auto came out as LDS = {power(t.auto_log)}, log LDS = {log_text(t.auto_log, 3)}: at least "
            f"{percent(1 - select['tau_level'])} of real images’ latents reach it."
        )
    if t.typical_log is not None:
        low, high = (log_text(x, 3) for x in t.typical_log)
        found.append(
            f"The band of typical = {select['typical']:g} goes from log LDS {low} to {high}: at least "
            f"{percent(select['typical'])} of real images’ latents lie in it."
        )
    if len(found) > 1:
        found.append("That is promised of latents of real images alone, not of interpolants.")
    return found


def _rules(data: ReportData) -> str:
    t = data.threshold
    assert t.binding is not None
    each = [f"{rule}, which keeps {count(n)}" for rule, n in zip(_named(data, t.rules), t.rules.values(), strict=True)]
    if len(each) == 1:
        return f"The rule: {each[0]}."
    decided = t.rules[t.binding] == t.n_selected
    together = f"{t.binding} decided" if decided else f"Together they keep {count(t.n_selected)}"
    return f"The rules, which must all hold: {'; '.join(each)}. {together}."


def _named(data: ReportData, rules: Iterable[str]) -> list[str]:
    """Rules of select with their values."""
    settings = data.config["select"]
    named = []
    for rule in rules:
        if rule not in settings:  # of a user's own
            named.append(rule)
            continue
        value = settings[rule] if settings[rule] == "auto" else f"{settings[rule]:g}"
        by = ["α"] * settings["stratify"] + [f"group of balance = {settings['balance']}"] * (
            settings["balance"] != "none"
        )
        within = f" within each {' and '.join(by)}" if by and rule.startswith("top_") else ""
        named.append(f"{rule} = {value}{within}")
    return named


def _ratio(difference: float) -> str:
    if abs(difference) < math.log(1.02):
        return "The threshold of this run is practically the same."
    word = "lower" if difference < 0 else "higher"
    return f"The threshold of this run is {power(abs(difference))} times {word}."


def bandwidth_sentence(data: ReportData) -> str:
    """σ, the rule it comes from, and what it is beside the paper's."""
    b = data.bandwidth
    return (
        f"σ = {b.sigma:.4g}, {typeset(b.sentence)}: {b.sigma / b.mean_norm:.3g} × the mean norm of the "
        f"{count(b.n_latents)} training latents, {b.mean_norm:.4g}; the paper takes 0.2 ×. Latents have "
        f"{count(b.latent_dim)} dimensions."
    )


def estimate_sentences(data: ReportData) -> list[str]:
    """What estimated scores are worth; none for exact ones."""
    if data.estimate is None:
        return []
    found = [
        f"The scores are estimates: latents near the parents by FAISS ({data.estimate.index}), the rest from a sample. "
        f"In the middle, a candidate’s log LDS is known to within an interval {data.estimate.width:.2g} wide."
    ]
    if data.estimate.index != "flat":
        found.append("Such an index may miss a near latent, so the upper ends of the intervals are not certain.")
    return found


def sample_note(data: ReportData) -> str:
    """Said where the figures rest on a sample; empty where they show every candidate."""
    s = data.scores
    if not s.sampled:
        return ""
    return (
        f"Figures, bands and findings rest on {count(len(s))} of the {count(s.n_total)} candidates, drawn without "
        "regard to their score; the threshold and the numbers kept are exact."
    )


def model_sentence(data: ReportData) -> str:
    """Reconstruction error beside that of the average image."""
    r = data.reconstructions
    if r is None:
        return ""
    kind = "test" if r.split == "test" else "training"
    tuned = "" if r.error_after is None else f", {r.error_after:.4f} after fine-tuning"
    if r.error_of_mean is None:
        found = f"Reconstruction error of these {len(r.originals)} {kind} images"
        return f"{found}: {r.error_before:.4f} for the baseline{tuned}."
    return (
        f"Mean squared error of these {len(r.originals)} {kind} images (pixel values 0 to 1): "
        f"{r.error_before:.4f} for the baseline{tuned}. Always answering with their average image "
        f"gives {r.error_of_mean:.4f}."
    )


def sharpness_sentences(data: ReportData) -> list[str]:
    """How sharp A is beside real images, and what the filter dropped; none where nothing was decoded."""
    q = data.sharpness
    if q is None:
        return []
    kind = "test" if q.split == "test" else "training"

    def spread(values: tuple[float, float, float]) -> str:
        low, median, high = (f"{v:.4g}" for v in values)
        return f"{median} in the middle (quartiles {low} and {high})"

    found = [
        f"Sharpness, the variance of the Laplacian of the grey image, is {spread(q.augmented)} over the "
        f"{count(q.n_augmented)} images of A and {spread(q.real)} over {count(q.n_real)} {kind} images."
    ]
    if q.real[1] > 0:
        ratio = q.augmented[1] / q.real[1]
        if ratio < 0.95:
            found.append(f"Decoded images are blurrier: their median is {percent(ratio)} of that of real ones.")
        elif ratio > 1.05:
            found.append(f"Decoded images are sharper, or noisier: {ratio:.3g} times the median of real ones.")
        else:
            found.append("Decoded images are about as sharp as real ones.")
    if q.least is not None:
        found.append(
            f"{count(q.n_decoded - q.n_augmented)} of {count(q.n_decoded)} decoded images were dropped as less sharp "
            f"(decode.sharpest = {data.config['decode']['sharpest']:g}): those kept have at least {q.least:.4g}."
        )
    return found


def evaluation_sentence(e: Evaluation) -> str:
    """What was compared with what."""
    found, extractor = e.found, e.found.extractor
    return (
        f"Each set of images against {count(found.n_test)} test images. Features: {extractor.name.rpartition('/')[2]}, "
        f"{count(extractor.dimension)} dimensions; k = {found.k} neighbours; samples are decoded from "
        f"{title_of(found.prior)}. The training images are the mark: what real images reach."
    )


_GALLERIES = {  # kind -> what the images are, and what stands below each
    "best": ("nearest to a test image", "the test image"),
    "worst": ("farthest from any test image", "the test image that is still the nearest"),
    "copy": ("nearest to a training image", "the training image: is it a copy?"),
}


def detection_sentence(found: Mapping[tuple[float, bool], Sequence[Detection]]) -> str:
    """Which groups LDS tells from real images at the paper's bandwidth, or the nearest to it."""
    scale, centred = min(found, key=lambda at: (abs(at[0] - 0.2), at[1]))
    sides: dict[str, list[str]] = {"tells apart": [], "cannot tell apart": [], "takes for more real than real": []}
    for x in found[scale, centred]:
        auroc = x.auroc.value
        side = 1 if abs(auroc - 0.5) <= 2 * x.auroc.standard_error else 0 if auroc > 0.5 else 2
        sides[list(sides)[side]].append(f"{x.group} ({auroc:.2f})")
    verdicts = "; ".join(f"{side} {', '.join(groups)}" for side, groups in sides.items() if groups)
    return f"At σ = {scale:g} × the mean norm, log LDS {verdicts}."


def gallery_title(gallery: Gallery, set_title: str) -> str:
    """Which images, and what is below each."""
    which, below = _GALLERIES[gallery.kind]
    return f"{set_title[:1].upper()}{set_title[1:]}: those {which}; below each, {below}"


def samples_alt(data: ReportData, which: str) -> str:
    """Alt text of the samples from N(0, I)."""
    n = len(data.prior_samples.before) if data.prior_samples is not None else 0
    if which == "before":
        return f"{n} images that the baseline decodes from random latents."
    return f"The images that the fine-tuned VAE decodes from the same {n} random latents, in the same places."


def parents_sentence(data: ReportData) -> str:
    """How many training images stand behind A."""
    p = data.parents
    if not data.threshold.n_selected:
        return "Nothing was selected, so no training image is a parent of A."
    most = f"{count(p.most_used)} time{'s' * (p.most_used != 1)}"
    return (
        f"{count(p.n_distinct)} of the {count(data.bandwidth.n_latents)} training images are a parent of a selected "
        f"candidate; the one used most is a parent {most}."
    )


def band_title(band: Band, bands: int) -> str:
    """Which part of the candidates."""
    if bands == 1:
        return "All candidates"
    edges = [percent((band.number - 1) / bands), percent(band.number / bands)]
    if band.number == 1:
        return f"Densest {edges[1]}"
    if band.number == bands:
        return f"Least dense {percent(1 / bands)}"
    return f"From {edges[0]} to {edges[1]}"


def band_facts(band: Band) -> str:
    """Its edges and what is in it."""
    return (
        f"LDS {power(band.high)} to {power(band.low)} (log {log_text(band.high)} to {log_text(band.low)}) · "
        f"{percent(band.n_selected / band.n)} of its {count(band.n)} candidates selected · "
        f"median parents’ share {percent(band.median_parent_share)}"
    )


def pick_alt(pick: Pick) -> str:
    """Alt text of a selected sample between its parents."""
    s = pick.shown
    return (
        f"Three images: parent {s.parent_i}, the decoded candidate {s.candidate} at α = {s.alpha:g}, "
        f"and parent {s.parent_j}."
    )


def figure_alts(data: ReportData) -> dict[str, str]:
    """Alt text of every figure: what it shows and its main numbers."""
    r, s, t, h = data.regime, data.scores, data.threshold, data.held_out
    ranking = s.ranking(t.ranked_by)
    quartiles = [log_text(float(q)) for q in np.quantile(ranking, [0.0, 0.5, 1.0])]
    medians = [(a, float(np.median(ranking[s.alpha == a]))) for a in r.alphas]
    densest, thinnest = max(medians, key=lambda m: m[1]), min(medians, key=lambda m: m[1])
    alts = {
        "density.svg": f"Histogram of log LDS of {count(len(s))} candidates: smallest {quartiles[0]}, median "
        f"{quartiles[1]}, largest {quartiles[2]}. "
        + ("No threshold was applied." if t.log is None else f"The threshold is {log_text(t.log)}.")
        + (f" Central 95% of held-out real latents: {log_text(h.low)} to {log_text(h.high)}." if h else ""),
        "by-alpha.svg": f"Log LDS by α. The median is highest at α = {densest[0]:g} ({log_text(densest[1])}) "
        f"and lowest at α = {thinnest[0]:g} ({log_text(thinnest[1])}).",
        "alpha-share.svg": (
            "Share of each α among all candidates; nothing was selected: "
            + "; ".join(f"α = {a:g}: {percent(x)}" for a, x in zip(r.alphas, r.alpha_share, strict=True))
            if r.alpha_share_selected is None
            else "Share of each α among all candidates and among the selected: "
            + "; ".join(
                f"α = {a:g}: {percent(x)} and {percent(y)}"
                for a, x, y in zip(r.alphas, r.alpha_share, r.alpha_share_selected, strict=True)
            )
        )
        + ".",
        "parent-share.svg": f"Histogram of the share of a candidate’s density that comes from its own two parents: "
        f"median {percent(r.median_parent_share)} of all"
        + (f", {percent(r.median_parent_share_selected)} of the selected." if r.n_selected else "."),
        "neighbours.svg": f"Histogram of the effective number of neighbours of a candidate: median "
        f"{r.median_effective_neighbours:,.3g} of {count(r.n_latents)} training latents.",
        "frontier.svg": "Fréchet distance over AuthPct of rules and samplers, and of noise about training latents as a "
        "line; the table has the numbers.",
        "attributes.svg": "Share of attributes among training images and among the parents of A: "
        + "; ".join(f"{a.name} {percent(a.train)} and {percent(a.parents)}" for a in data.parents.attributes)
        + ".",
    }
    for curve in data.curves:
        for term in {name for point in curve.points for name in point} - {"step"}:
            first, last = ([p for p in curve.points if term in p][k] for k in (0, -1))
            name = "training" if curve.stage == "train" else "fine-tuning"
            text = f"{name} from {first[term]:.4g} at step {first['step']} to {last[term]:.4g} at step {last['step']}"
            key = f"curve-{term}.svg"
            alts[key] = f"{alts[key][:-1]}; {text}." if key in alts else f"{term.replace('_', ' ')}: {text}."
    return alts


def key_settings(data: ReportData) -> Pairs:
    """The settings that matter most."""
    c = data.config
    alphas = c["score"]["alphas"]
    gaps = {round(b - a, 6) for a, b in pairwise(alphas)}
    even = len(alphas) > 3 and len(gaps) == 1
    listed = f"{alphas[0]:g}, {alphas[1]:g}, …, {alphas[-1]:g}" if even else _listed(alphas)
    steps = c["train"]["steps"]
    selection = data.threshold.which
    if data.threshold.rules:
        rules = ", ".join(_named(data, data.threshold.rules))
        selection += f": {rules}; own parents {'left out' if c['select']['exclude_parents'] else 'counted'}"
    return [
        ("Images", c["data"]["source"] + (f", {c['data']['resolution']} px" if "resolution" in c["data"] else "")),
        ("Latent dimension", count(data.bandwidth.latent_dim)),
        ("Training", f"{count(steps)} steps × {c['train']['batch_size']}" if steps else f"none ({c['vae']['kind']})"),
        ("Candidates", f"{count(c['score']['n_candidates'])}, {_plan(c['score'], listed)}"),
        ("Selection", selection),
        ("Fine-tuning", f"{count(c['finetune']['steps'])} steps × {c['finetune']['batch_size']}"),
        ("Seed", str(c["seed"])),
    ]


def _plan(score: Mapping[str, Any], alphas: str) -> str:
    pairs = {"single": "of single latents", "neighbours": f"of {score['neighbours']} nearest neighbours, α = {alphas}"}
    noise = f", noise of {score['noise']:g} × the median distance to the nearest" if score["noise"] else ""
    return pairs.get(score["plan"], f"α = {alphas}") + noise


def _listed(values: list[float]) -> str:
    return ", ".join(f"{v:g}".replace("-", MINUS) for v in values)
