"""Results over the seeds: mean and standard error of each arm, and its difference to its control, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ldsaug_ray.experiment.plan import BASELINE, ArmRun, Plan
from ldsaug_ray.experiment.results import Result
from ldsaug_ray.metrics import MEASURES, Difference, Mean, mean_and_error, paired_difference

SHOWN = ("frechet", "kernel_distance", "density", "coverage", "sharpness", "authenticity", "nearer")
"""Measures of the tables; results.csv has all of them."""
COMPARED = ("frechet", "kernel_distance", "density", "coverage", "sharpness")
LOWER_IS_BETTER = ("frechet", "kernel_distance")


@dataclass(frozen=True)
class Row:
    """An arm over the seeds. n_of_a: mean number of images of A; means: measure -> mean, None where it has none."""

    arm: str
    about: str
    n_of_a: float | None
    means: Mapping[str, Mean | None]


@dataclass(frozen=True)
class Comparison:
    """Arm minus control over the seeds that both have; None where they share no value."""

    arm: str
    control: str
    differences: Mapping[str, Difference | None]


@dataclass(frozen=True)
class Group:
    """One training-set size (none: data.train): its rows in the order of the arms, and what they differ by.

    notes are on the comparisons, run_notes on what single runs could not measure well.
    """

    train: int | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    run_notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """In words."""
        return "all training images" if self.train is None else f"{self.train:,} training images"


@dataclass(frozen=True)
class Summary:
    """All groups. measures and compared: name -> title; tables: title -> arms; caption: how it was measured."""

    measures: Mapping[str, str]
    compared: Mapping[str, str]
    groups: tuple[Group, ...]
    tables: Mapping[str, tuple[str, ...]]
    caption: str


def summarise(plan: Plan, results: Sequence[Result]) -> Summary:
    """What is there so far; an arm without any result is left out."""
    asked = plan.config.experiment
    shares = {f"share of {a}": f"share of {a}" for a in plan.config.evaluate.attributes}
    groups = []
    for train in dict.fromkeys(cell.train for cell in plan.cells):
        found = [r for r in results if r.cell.train == train]
        if found:
            groups.append(_group(plan, train, found, [*COMPARED, *shares]))
    return Summary(
        {**{m: MEASURES[m] for m in SHOWN}, **shares},
        {**{m: MEASURES[m] for m in COMPARED}, **shares},
        tuple(groups),
        asked.tables,
        _caption(plan, results),
    )


def _group(plan: Plan, train: int | None, results: Sequence[Result], compared: Sequence[str]) -> Group:
    asked = plan.config.experiment
    of = {name: [r for r in results if r.arm == name] for name in (BASELINE, *asked.arms)}
    rows = []
    for name, found in of.items():
        if not found:
            continue
        about = "the model before any fine-tuning" if name == BASELINE else asked.arms[name].about
        counts = [r.n_of_a for r in found if r.n_of_a is not None]
        means = {m: _mean([r.values[m] for r in found]) for m in found[0].values}
        rows.append(Row(name, about, sum(counts) / len(counts) if counts else None, means))
    pairs = [(name, control) for name in of if (control := asked.control_of(name)) is not None]
    comparisons = []
    notes: list[str] = []
    for name, control in pairs:
        if not of[name] or not of[control]:
            continue
        differences = {m: _difference(of[name], of[control], m) for m in compared}
        comparisons.append(Comparison(name, control, differences))
        notes += [note for d in differences.values() if d is not None for note in d.notes]
        notes += _not_matched(plan, name, control)
    run_notes = dict.fromkeys(note for result in results for note in result.notes)
    seeds = tuple(dict.fromkeys(r.cell.seed for r in results))
    return Group(train, seeds, tuple(rows), tuple(comparisons), tuple(dict.fromkeys(notes)), tuple(run_notes))


def _mean(values: Sequence[float | None]) -> Mean | None:
    known = [v for v in values if v is not None]
    return mean_and_error(known) if known else None


def _difference(arm: Sequence[Result], control: Sequence[Result], measure: str) -> Difference | None:
    theirs = {r.cell: r.values[measure] for r in control}
    pairs = [(r.values[measure], theirs.get(r.cell)) for r in arm]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return paired_difference([a for a, _ in known], [b for _, b in known], name=measure) if known else None


def _not_matched(plan: Plan, arm: str, control: str) -> list[str]:
    """A control that had fewer or other steps proves little (spec section 2, trap 4)."""
    first = plan.cells[0]
    had = {run.arm: _training(run) for run in plan.of(first)}
    if had[arm] == had[control]:
        return []
    return [f"{arm} had {had[arm]}, its control {control} {had[control]}: they are not compute-matched."]


def _training(run: ArmRun) -> str:
    if run.arm == BASELINE:
        return "no further steps"
    return f"{run.config.finetune.steps:,} further steps of {run.config.finetune.batch_size} training images"


def _caption(plan: Plan, results: Sequence[Result]) -> str:
    config, seeds = plan.config, ", ".join(map(str, plan.config.experiment.seeds))
    parts = [
        f"{config.data.resolution} px; baseline {config.train.steps:,} steps × {config.train.batch_size}, arms "
        f"{config.finetune.steps:,} further steps × {config.finetune.batch_size}; seeds {seeds}; mean ± standard error"
    ]
    for said in dict.fromkeys(replace(r.setting, prior="") for r in results):
        priors: dict[str, list[str]] = {}
        for result in results:
            if replace(result.setting, prior="") == said:
                priors.setdefault(result.setting.prior, []).append(result.arm)
        fewest = sorted(priors.items(), key=lambda item: -len(item[1]))
        others = "".join(f"; {prior} in {', '.join(dict.fromkeys(arms))}" for prior, arms in fewest[1:])
        parts.insert(
            0,
            f"{said.n:,} images drawn from each model (prior {fewest[0][0]}{others}) against {said.n_test:,} test "
            f"images; features: {said.extractor}, {said.dimension:,} dimensions; k = {said.k}",
        )
    return "; ".join(parts) + "."
