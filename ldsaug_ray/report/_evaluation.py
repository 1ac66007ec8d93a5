"""What stage `evaluate` left, for the page: its record and galleries."""

from __future__ import annotations

import pyarrow as pa

from ldsaug_ray.domains import Domain
from ldsaug_ray.metrics import Evaluated, measures_taken
from ldsaug_ray.metrics.copies import held_out_authenticity
from ldsaug_ray.report.data import Evaluation, Gallery
from ldsaug_ray.report.sheets import shown
from ldsaug_ray.run.directory import RunDir, facts_of

TITLES = {  # sets of images, in the order of the page's columns
    "train": "training images",
    "augmented": "A",
    "baseline": "baseline",
    "finetuned": "fine-tuned",
}


def read_evaluation(run: RunDir, domain: Domain, samples: int = 0) -> Evaluation | None:
    """The numbers, and galleries of up to so many items; None where the stage is not complete."""
    if run.entry("evaluate") is None:
        return None
    found = Evaluated.read(run.folder("evaluate") / "metrics.json")
    sets = {name: found.sets[name] for name in TITLES if name in found.sets}
    return Evaluation(
        found,
        measures_taken(found.own, [of.readings for of in sets.values()]),
        sets,
        tuple(dict.fromkeys(note for of in sets.values() for note in of.notes)),
        held_out_authenticity(found),
        tuple(g for name in [*sets][::-1] if name != "train" for g in _galleries(run, name, domain, samples)),
    )


def _galleries(run: RunDir, name: str, domain: Domain, samples: int) -> list[Gallery]:
    file = run.folder(f"evaluate/gallery-{name}.parquet")
    if not samples or not file.exists():  # too few images to measure
        return []
    table = file.read_table()
    found = []
    for kind in ("best", "worst", "copy"):
        rows = table.filter(pa.compute.equal(table["kind"], kind)).slice(0, samples)
        columns = (domain.column, f"nearest_{domain.column}")
        pair = [shown(domain, domain.unpack(rows, column), facts_of(run.root)) for column in columns]
        found.append(Gallery(name, kind, *pair))
    return found
