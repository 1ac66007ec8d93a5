"""`ldsaug measure`: two sets of images compared, as a table, JSON, and a page with the nearest pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

import ldsaug_ray
from ldsaug_ray.api._features import Given
from ldsaug_ray.api.measure import Measured, measured
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains import Domain
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.images.decode import fitted
from ldsaug_ray.errors import UsageError
from ldsaug_ray.metrics import Nearest, nearest_training
from ldsaug_ray.report._scores import data_uri
from ldsaug_ray.report.numbers import count, value
from ldsaug_ray.report.page import templates
from ldsaug_ray.report.sheets import LARGEST, pairs, sheet, tiles
from ldsaug_ray.run.progress import make_console, print_table
from ldsaug_ray.stages.shared.checks import require_faiss

SHOWN = 16  # pairs of each gallery
_OWN = ("extractor", "k", "resize", "measures")  # settings of `evaluate` that count here


def measure_command(
    real: str,
    fake: str,
    overrides: Sequence[str] = (),
    *,
    train: str | None = None,
    extractor: str | None = None,
    json_file: str | None = None,
    html_file: str | None = None,
) -> int:
    """Measure, print a table, write what was asked for. Returns the exit code.

    Args:
        real, fake, train, extractor: as for `measure`.
        overrides: name=value, of the settings `data` and `evaluate` that count here, and seed.
        json_file: path or URI of the numbers; `-` prints them instead of the table.
        html_file: path or URI of the page.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    possible = f"domain, data.NAME, evaluate.{', evaluate.'.join(_OWN)} and seed"
    given = [override.partition("=")[0].strip() for override in overrides]
    for name in given:
        known = name.startswith("data.") or name in ("seed", "domain") or name.removeprefix("evaluate.") in _OWN
        if not known:
            raise UsageError(f"measure: {name} does not count here; possible: {possible}")
    config = build_config({"run_dir": ".", "data": {"source": real}}, overrides)
    asked = config.evaluate
    found = measured(
        {"real": real, "fake": fake} | ({} if train is None else {"train": train}),
        extractor=extractor or asked.extractor,
        domain=config.domain,
        k=asked.k,
        measures=asked.measures,
        resize=asked.resize,
        data={n.removeprefix("data."): getattr(config.data, n[5:]) for n in given if n.startswith("data.")},
        seed=config.seed,
        console=make_console(),
    )
    if json_file == "-":
        print(json.dumps(found.numbers(), indent=2, ensure_ascii=False))
    else:
        _print(found)
    if json_file not in (None, "-"):
        Location.of(str(json_file)).write_json(found.numbers())
    if html_file is not None:
        Location.of(html_file).write_bytes(measure_page(found).encode())
    for what, file in (("numbers", json_file), ("page", html_file)):
        if file not in (None, "-") and json_file != "-":
            print(f"{what:<8} {Location.of(str(file)).shown}")
    return 0


def caption(found: Measured) -> str:
    """What was compared, and by what."""
    n = {name: f"{len(of.features):,}" for name, of in found.given.items()}
    e = found.extractor
    dimension = f"{found.given['real'].features.shape[1]:,} dimensions"
    by = f"features as given, {dimension}" if e is None else f"features: {e.name}, {dimension}"
    trained = f", {n['train']} training" if "train" in n else ""
    return f"{n['fake']} fake against {n['real']} real {_domain(found).unit}{trained}; {by}; k = {found.k}"


def _domain(found: Measured) -> Domain:
    images = found.given["real"].images
    return IMAGES if images is None else images.domain


def rows_of(found: Measured) -> list[list[str]]:
    """The table's head and rows: each measure of every set, of the fake images with its interval."""
    others = [name for name in found.sets if name != "fake"]
    rows = [["", "fake", "95 % interval", *others]]
    for measure in found.measures:
        limits = found.intervals.get(measure.name)
        interval = "" if limits is None else f"{value(limits[0])} to {value(limits[1])}"
        values = {name: of.value(measure.name) for name, of in found.sets.items()}
        cells = ["" if values[name] is None else value(values[name]) for name in others]
        rows.append([f"{measure.title} {measure.arrow}".strip(), value(values["fake"]), interval, *cells])
    return rows


def _print(found: Measured) -> None:
    head, *rows = rows_of(found)
    print(caption(found))
    print_table(None, head, rows, 110)
    for note in found.notes:
        print(note)


def measure_page(found: Measured) -> str:
    """The page as HTML text: one file that needs nothing else."""
    fake, galleries = found.given["fake"], []
    words = _domain(found).words
    to_real = nearest_training(found.given["real"].features, fake.features)
    order = np.argsort(to_real.distances, kind="stable")
    galleries.append(_gallery(words("Nearest to a real image"), "real", found, to_real, order[:SHOWN]))
    galleries.append(_gallery(words("Farthest from any real image"), "real", found, to_real, order[::-1][:SHOWN]))
    if "train" in found.given:
        near = nearest_training(found.given["train"].features, fake.features)
        title = words("Nearest to a training image: copies, where they are the same")
        galleries.insert(0, _gallery(title, "train", found, near, near.closest(SHOWN)))
    e = found.extractor
    return (
        templates(words)
        .get_template("report/measure.html.j2")
        .render(
            caption=caption(found),
            version=ldsaug_ray.__version__,
            sets={name: (of.origin, count(len(of.features))) for name, of in found.given.items()},
            table=rows_of(found),
            notes=found.notes,
            galleries=galleries,
            extractor=e,
            json=data_uri("application/json", json.dumps(found.numbers(), indent=2).encode()),
        )
    )


def _gallery(title: str, beside: str, found: Measured, near: Nearest, rows: np.ndarray) -> dict[str, Any]:
    """Some fake images, each with its nearest of another set: names, distances and, of images, a contact sheet."""
    fake, other = found.given["fake"], found.given[beside]
    names = zip(fake.names(rows), other.names(near.rows[rows]), strict=True)
    distances = [value(float(near.distances[row])) for row in rows]
    rows_shown = [(*pair, distance) for pair, distance in zip(names, distances, strict=True)]
    shown = [_pictures(fake, rows), _pictures(other, near.rows[rows])]
    if any(not of for of in shown):
        return {"title": title, "beside": beside, "rows": rows_shown, "sheet": None, "pixels": False}
    side = min(LARGEST, *(min(image.shape[:2]) for of in shown for image in of))
    above, below = (tiles(np.stack([fitted(image, side) for image in of])) for of in shown)
    picture = data_uri("image/png", sheet(pairs(above, below)))
    return {"title": title, "beside": beside, "rows": rows_shown, "sheet": picture, "pixels": side < LARGEST // 2}


def _pictures(of: Given, rows: np.ndarray) -> list[np.ndarray]:
    """Pictures uint8[H, W, 3] of some rows, which could be read before; none of features, or where there are none."""
    if of.images is None:
        return []
    items = (item for item in of.images.read(of.rows[rows].tolist()) if not isinstance(item, str))
    pictures = (of.images.domain.pixels(np.stack([item])) for item in items)
    return [picture[0] for picture in pictures if picture is not None]
