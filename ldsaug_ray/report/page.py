"""The page itself: `ReportData` and its pictures into one HTML file that needs nothing else; one script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from ldsaug_ray import lds
from ldsaug_ray.metrics import by_bandwidth
from ldsaug_ray.metrics.downstream import sentence as downstream_sentence
from ldsaug_ray.report import numbers, words
from ldsaug_ray.report._evaluation import TITLES
from ldsaug_ray.report._scores import data_uri
from ldsaug_ray.report.data import ReportData
from ldsaug_ray.report.pictures import loss_terms, pictures_of
from ldsaug_ray.selection import PAPER_TAU

_KINDS = {"svg": "image/svg+xml", "png": "image/png"}


def report_page(data: ReportData, pictures: Mapping[str, bytes] | None = None) -> str:
    """The page as HTML text. The same data gives the same text; of the data only `seconds`, `rate`, `resumed` vary."""
    shown = pictures_of(data) if pictures is None else pictures
    environment = templates()
    environment.filters.update(
        count=numbers.count,
        percent=numbers.percent,
        share=numbers.share,
        points=numbers.points,
        log=numbers.log_text,
        power=numbers.power,
        value=numbers.value,
        duration=numbers.duration,
    )
    csv, script = data.selected_csv, files(__package__).joinpath("explorer.js").read_text("utf-8")
    return environment.get_template("report/page.html.j2").render(
        data=data,
        words=words,
        by_bandwidth=by_bandwidth,
        set_titles=TITLES,
        paper_tau=PAPER_TAU,
        rate=numbers.rate,
        findings=[words.typeset(s) for s in (*data.modes, *lds.sentences(data.regime))],
        alts=words.figure_alts(data),
        images={name: data_uri(_KINDS[name.rpartition(".")[2]], content) for name, content in shown.items()},
        terms=loss_terms(data),
        downstream_sentence=downstream_sentence,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        explorer_pictures={c: data_uri("image/png", x) for c, x in data.explorer.shown.items()},
        settings=yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True),
        csv=None if csv is None else data_uri("text/csv", csv.encode()),
    )


def findings(data: ReportData) -> list[str]:
    """What the page says of the run, in sentences that can stand alone."""
    found = [words.headline(data), *words.threshold_sentences(data), *map(words.typeset, lds.sentences(data.regime))]
    if data.evaluation is not None and data.evaluation.found.detection:
        found.append(words.detection_sentence(by_bandwidth(data.evaluation.found.detection)))
    return found


def templates() -> Environment:
    """Of the package's pages: escaped, and a name that a page does not get is an error."""
    return Environment(
        loader=PackageLoader("ldsaug_ray", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_digest(data: ReportData, pictures: Mapping[str, bytes]) -> str:
    """SHA-256 of what the page says, without timings, worker counts, the run's place, and decoded pixels.

    Pixels are left out because another thread count may change their last bit; they follow from digests that are in.
    """
    stages = tuple(replace(s, seconds=None, rate=None, resumed="") for s in data.stages)
    config = {**data.config, "run_dir": "", "ray": {}, "tracking": {}}
    config.pop("engine", None)
    for name, section in config.items():
        if isinstance(section, dict) and "workers" in section:
            config[name] = {k: v for k, v in section.items() if k != "workers"}
    figures = {name: content if name.endswith(".svg") else b"" for name, content in pictures.items()}
    blank = replace(data.explorer, shown=dict.fromkeys(data.explorer.shown, b""))
    text = report_page(replace(data, name="", version="", stages=stages, config=config, explorer=blank), figures)
    return hashlib.sha256(text.encode()).hexdigest()
