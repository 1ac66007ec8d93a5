"""What one run of an experiment came to, read from its `evaluate/metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.experiment.plan import BASELINE, ArmRun, Cell
from ldsaug_ray.metrics import Described, Evaluated, measures_taken, share_by_parents
from ldsaug_ray.metrics.copies import AUTHENTICITY, held_out_authenticity
from ldsaug_ray.report.sheets import Shown, shown
from ldsaug_ray.run.directory import RunDir, facts_of
from ldsaug_ray.run.latents import read_latents

REAL = "training images"
"""Name of the row that real images have in the tables: what a model can reach."""


@dataclass(frozen=True)
class Setting:
    """How it was measured: what a caption must say."""

    extractor: str
    dimension: int
    k: int
    n: int
    n_test: int
    prior: str


@dataclass(frozen=True)
class Result:
    """Numbers of one arm in one cell.

    values: measure -> number; None where the images at hand do not allow it. Besides the measures there is `share of X`
    for each attribute X.
    n_of_a: images of A; none where there is no fine-tuning. train_images: those there were. detection: of the baseline,
    AUROC of log LDS by (group, sigma over the mean norm, whether that is taken from the latents' mean). probes:
    balanced accuracy on test images of what tells each attribute. own: measures of the user's, among the values.
    """

    arm: str
    cell: Cell
    setting: Setting
    values: Mapping[str, float | None]
    n_of_a: int | None
    notes: tuple[str, ...]
    train_images: int | None = None
    detection: Mapping[tuple[str, float, bool], float] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)
    own: tuple[Described, ...] = ()


def read_result(run: ArmRun, images: str = "") -> Result | None:
    """The numbers of a run that is done; None where there are none.

    Args:
        run: its settings must be those that the numbers were made with.
        images: another set of `metrics.json` than what the arm's model draws; REAL's is train.
    """
    folder = RunDir(Location.of(run.config.run_dir))
    if folder.entry("evaluate") is None:
        return None
    found = Evaluated.read(folder.root / "evaluate/metrics.json")
    name = images or (BASELINE if run.arm == BASELINE else "finetuned")
    readings, attributes = found.sets[name], found.attributes
    values = {m.name: readings.value(m.name) for m in measures_taken(found.own, [readings.readings])}
    if images:  # real images are as new as can be
        values[AUTHENTICITY.name] = held_out_authenticity(found)
    values |= {
        f"{'distance' if of.categorical else 'share'} of {a}": of.shares[name].value for a, of in attributes.items()
    }
    if not images and run.arm != BASELINE and folder.require("decode", "rows_out"):
        values |= shares_by_parents(folder, [a for a, of in attributes.items() if not of.categorical])
    setting = Setting(
        found.extractor.name.rsplit("/", 1)[-1],
        found.extractor.dimension,
        found.k,
        readings.n,
        found.n_test,
        found.prior,
    )
    decoded = None if run.arm == BASELINE else folder.require("decode", "rows_out")
    return Result(
        REAL if images else run.arm,
        run.cell,
        setting,
        values,
        decoded,
        () if images else readings.notes,
        folder.require("prepare", "train_images"),
        {(d.group, d.scale, d.centred): d.auroc.value for d in found.detection or ()},
        {name: of.balanced_accuracy for name, of in attributes.items()},
        found.own,
    )


def measures_of(results: Sequence[Result]) -> tuple[Described, ...]:
    """The measures that were taken, in the order of the tables."""
    own = {m.name: m for result in results for m in result.own}
    return measures_taken(own.values(), [result.values for result in results])


def shares_by_parents(run: RunDir, attributes: Sequence[str]) -> dict[str, float | None]:
    """`share of X in A` of each attribute, from the labels of A's parents: no probe need guess it."""
    if not attributes:
        return {}
    latents = read_latents(run, "train")
    columns = ["parent_i", "parent_j", "alpha"]
    tables = [(run.root / file).read_table(columns) for file, _ in run.finished_parts("decode")]
    rows = [np.concatenate([latents.rows(t[c]) for t in tables]) for c in columns[:2]]
    alphas = np.concatenate([t["alpha"].to_numpy() for t in tables])
    shares: dict[str, float | None] = {}
    for name in attributes:
        labels = latents.attributes[:, latents.attribute_names.index(name)]
        shares[f"share of {name} in A"] = share_by_parents(labels[np.stack(rows, axis=1)], alphas)
    return shares


def read_samples(run: ArmRun, n: int) -> Shown | None:
    """The first items drawn from the run's model, as pages show them: the same latents in every arm of a cell, where
    the prior is N(0, I). None where there are none."""
    model = "train" if run.arm == BASELINE else "finetune"
    return first_drawn(Location.of(run.config.run_dir), model, n, run.config.domain)


def first_drawn(run: Location, model: str, n: int, domain: str) -> Shown | None:
    """The first n items that `evaluate` drew from a model, as pages show them; None without any."""
    drawn, kind = RunDir(run / f"drawn/{model}"), DOMAINS.get(domain)
    if drawn.entry("sample") is None:
        return None
    file, _ = drawn.finished_parts("sample")[0]
    return shown(kind, kind.unpack((drawn.root / file).read_table([kind.column]).slice(0, n)), facts_of(run))
