"""The page itself: `ReportData` and its pictures into one HTML file that needs nothing else; one script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ldsaug_ray import lds
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.metrics import by_bandwidth
from ldsaug_ray.metrics.downstream import sentence as downstream_sentence
from ldsaug_ray.report import numbers, words
from ldsaug_ray.report._evaluation import TITLES
from ldsaug_ray.report._scores import data_uri
from ldsaug_ray.report.data import ReportData
from ldsaug_ray.report.pictures import loss_terms, pictures_of
from ldsaug_ray.report.sheets import Shown, blocks, sheet
from ldsaug_ray.selection import PAPER_TAU

_KINDS = {"svg": "image/svg+xml", "png": "image/png"}


def report_page(data: ReportData, pictures: Mapping[str, bytes] | None = None) -> str:
    """The page as HTML text. The same data gives the same text; of the data only `seconds`, `rate`, `resumed` vary."""
    shown = pictures_of(data) if pictures is None else pictures
    said = words_of(data.config)
    environment = templates(said)
    environment.filters.update(
        count=numbers.count,
        percent=numbers.percent,
        share=numbers.share,
        points=numbers.points,
        log=numbers.log_text,
        power=numbers.power,
        value=numbers.value,
        duration=numbers.duration,
        said=said,
        markup=Markup,
    )
    csv, script = data.selected_csv, files(__package__).joinpath("explorer.js").read_text("utf-8")
    return environment.get_template("report/page.html.j2").render(
        data=data,
        words=_Worded(said),
        by_bandwidth=by_bandwidth,
        set_titles={name: said(title) for name, title in TITLES.items()},
        paper_tau=PAPER_TAU,
        rate=numbers.rate,
        findings=[said(words.typeset(s)) for s in (*data.modes, *lds.sentences(data.regime))],
        alts={name: said(text) for name, text in words.figure_alts(data).items()},
        images={
            name: data_uri(_KINDS[name.rpartition(".")[2]], content)
            for name, content in shown.items()
            if not name.endswith(".html")
        },
        fragments={n[:-5]: Markup(x.decode()) for n, x in shown.items() if n.endswith(".html")},
        terms=loss_terms(data),
        downstream_sentence=lambda gains: said(downstream_sentence(gains)),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        settings=yaml.safe_dump(dict(data.config), sort_keys=False, allow_unicode=True),
        csv=None if csv is None else data_uri("text/csv", csv.encode()),
    )


def findings(data: ReportData) -> list[str]:
    """What the page says of the run, in sentences that can stand alone."""
    found = [words.headline(data), *words.threshold_sentences(data), *map(words.typeset, lds.sentences(data.regime))]
    if data.evaluation is not None and data.evaluation.found.detection:
        found.append(words.detection_sentence(by_bandwidth(data.evaluation.found.detection)))
    return [words_of(data.config)(sentence) for sentence in found]


def words_of(config: Mapping[str, Any]) -> Callable[[str], str]:
    """Sentences on images, in the words of the domain that resolved settings name."""
    return DOMAINS.get(config.get("domain", "images")).words


class _Worded:
    """The module `words`, in the domain's words."""

    def __init__(self, said: Callable[[str], str]):
        self._said = said

    def __getattr__(self, name: str) -> Any:
        sentence = getattr(words, name)

        def worded(*given: Any) -> Any:
            found = sentence(*given)
            if isinstance(found, str):
                return self._said(found)
            return [tuple(map(self._said, x)) if isinstance(x, tuple) else self._said(x) for x in found]

        return worded


class _Pages(PackageLoader):
    """Templates in the domain's words: their text, not what is code or style in them."""

    def __init__(self, said: Callable[[str], str]):
        super().__init__("ldsaug_ray", ".")
        self._said = said

    def get_source(self, environment: Environment, template: str) -> Any:
        source, file, current = super().get_source(environment, template)
        if template.endswith("css.j2"):
            return source, file, current
        parts = re.split(r"(\{\{.*?\}\}|\{%.*?%\})", source, flags=re.DOTALL)
        return "".join(part if part.startswith("{") else self._said(part) for part in parts), file, current


@cache
def templates(said: Callable[[str], str] = str) -> Environment:
    """Of the package's pages: escaped, and a name that a page does not get is an error. said: as `Domain.words`."""
    return Environment(
        loader=_Pages(said),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def on_page(items: Shown) -> str:
    """Of a sheet its data URI; fragments as they are, marked so."""
    if isinstance(items, list):
        return Markup(blocks(items))
    return data_uri("image/png", sheet(items))


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
    blank = replace(data.explorer, shown=dict.fromkeys(data.explorer.shown, ""))
    text = report_page(replace(data, name="", version="", stages=stages, config=config, explorer=blank), figures)
    return hashlib.sha256(text.encode()).hexdigest()
