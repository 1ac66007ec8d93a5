"""What stage `evaluate` left, for the page: rows of a table, shares of attributes, galleries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ldsaug_ray.domains.images.stored import images_of
from ldsaug_ray.metrics import MEASURES
from ldsaug_ray.report.data import Balance, DetectionRow, DetectionTable, Evaluation, Gallery, Measure
from ldsaug_ray.report.sheets import tiles
from ldsaug_ray.run.directory import RunDir

TITLES = {  # sets of images, in the order of the page's columns
    "train": "training images",
    "augmented": "A",
    "baseline": "baseline",
    "finetuned": "fine-tuned",
}


def read_evaluation(run: RunDir) -> Evaluation | None:
    """The numbers and galleries; None where the stage is not complete."""
    if run.entry("evaluate") is None:
        return None
    folder = run.folder("evaluate")
    told = (folder / "metrics.json").read_json()
    sets = [name for name in TITLES if name in told["sets"]]
    notes = [note for name in sets for note in told["notes"].get(name, ())]
    return Evaluation(
        extractor=told["extractor"]["name"],
        dimension=told["extractor"]["dimension"],
        k=told["k"],
        prior=told["prior"],
        n_test=told["reference"]["n"],
        sets=tuple(sets),
        n=tuple(told["sets"][name]["n"] for name in sets),
        measures=tuple(_measure(name, told["sets"], sets) for name in MEASURES),
        balance=tuple(_balance(name, found, sets) for name, found in told["attributes"].items()),
        notes=tuple(dict.fromkeys(notes)),
        authenticity_held_out=held_out_authenticity(told),
        galleries=tuple(g for name in sets[::-1] if name != "train" for g in _galleries(run, name)),
        detection=_detection(told.get("detection", ())),
    )


def held_out_authenticity(told: Mapping[str, Any]) -> float | None:
    """AuthPct of held-out real images, from `metrics.json`: what no new image can be expected to exceed by much."""
    found = (numbers.get("authenticity", {}).get("held_out") for numbers in told["sets"].values())
    return next((x for x in found if x is not None), None)


def _measure(name: str, found: Mapping[str, Any], sets: list[str]) -> Measure:
    cells = [found[s].get(name, {}) for s in sets]
    return Measure(
        MEASURES[name],
        tuple(c.get("value") for c in cells),
        tuple(c.get("standard_error") for c in cells),
    )


def _balance(name: str, found: Mapping[str, Any], sets: list[str]) -> Balance:
    shares = [found["shares"][s] for s in sets]
    limits = [None if s.get("low") is None else (s["low"], s["high"]) for s in shares]
    accuracy = found["probe"]["balanced_accuracy"]["value"]
    return Balance(name, accuracy, found["shares"]["test"]["value"], tuple(s["value"] for s in shares), tuple(limits))


def _detection(found: Sequence[Mapping[str, Any]]) -> DetectionTable | None:
    if not found:
        return None
    groups = tuple(dict.fromkeys(x["group"] for x in found))
    rows = []
    for scale, centred, sigma in dict.fromkeys((x["scale"], x["centred"], x["sigma"]) for x in found):
        at = {x["group"]: x["auroc"] for x in found if (x["scale"], x["centred"]) == (scale, centred)}
        values, errors = (tuple(at[g][name] for g in groups) for name in ("value", "standard_error"))
        rows.append(DetectionRow(scale, centred, sigma, values, errors))
    return DetectionTable(groups, tuple(rows))


def _galleries(run: RunDir, name: str) -> list[Gallery]:
    file = run.folder(f"evaluate/gallery-{name}.parquet")
    if not file.exists():  # too few images to measure
        return []
    table = file.read_table()
    found = []
    for kind in ("best", "worst", "copy"):
        rows = table.filter(pa.compute.equal(table["kind"], kind))
        pairs = [images_of(rows, column) for column in ("image", "nearest_image")]
        found.append(Gallery(name, kind, tiles(pairs[0]), tiles(pairs[1])))
    return found
