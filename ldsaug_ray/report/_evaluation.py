"""What stage `evaluate` left, for the page: rows of a table, shares of attributes, galleries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from ldsaug_ray.domains.images.stored import images_of
from ldsaug_ray.metrics import OF_SETS, Attribute, Described, Detection, Evaluated, Reading, SetReadings
from ldsaug_ray.metrics.copies import held_out_authenticity
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
    found = Evaluated.read(run.folder("evaluate") / "metrics.json")
    sets = {name: found.sets[name] for name in TITLES if name in found.sets}
    return Evaluation(
        extractor=found.extractor.name,
        dimension=found.extractor.dimension,
        k=found.k,
        prior=found.prior,
        n_test=found.n_test,
        sets=tuple(sets),
        n=tuple(of.n for of in sets.values()),
        measures=tuple(_measure(measure, sets.values()) for measure in (*OF_SETS, *found.own)),
        balance=tuple(_balance(name, attribute, sets) for name, attribute in found.attributes.items()),
        notes=tuple(dict.fromkeys(note for of in sets.values() for note in of.notes)),
        authenticity_held_out=held_out_authenticity(found),
        galleries=tuple(g for name in [*sets][::-1] if name != "train" for g in _galleries(run, name)),
        detection=_detection(found.detection or ()),
    )


def _measure(measure: Described, sets: Iterable[SetReadings]) -> Measure:
    cells = [of.readings.get(measure.name, Reading(None)) for of in sets]
    return Measure(measure.title, tuple(c.value for c in cells), tuple(c.standard_error for c in cells))


def _balance(name: str, found: Attribute, sets: Iterable[str]) -> Balance:
    shares, real = [found.shares[s] for s in sets], found.shares["test"].value
    assert real is not None  # it is counted
    return Balance(
        f"{name}: distance to test" if found.categorical else name,
        found.balanced_accuracy,
        real,
        tuple(s.value for s in shares),
        tuple(s.interval for s in shares),
    )


def _detection(found: Sequence[Detection]) -> DetectionTable | None:
    if not found:
        return None
    groups = tuple(dict.fromkeys(x.group for x in found))
    rows = []
    for scale, centred, sigma in dict.fromkeys((x.scale, x.centred, x.sigma) for x in found):
        at = {x.group: x.auroc for x in found if (x.scale, x.centred) == (scale, centred)}
        values, errors = tuple(at[g].value for g in groups), tuple(at[g].standard_error for g in groups)
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
