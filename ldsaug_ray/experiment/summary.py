"""Results over the seeds: mean and standard error of each arm, and its difference to its control, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ldsaug_ray.domains import domain_of
from ldsaug_ray.experiment.plan import BASELINE, ArmRun, Cell, Plan
from ldsaug_ray.experiment.results import REAL, Result, measures_of
from ldsaug_ray.metrics import Difference, Mean, mean_and_error, paired_difference
from ldsaug_ray.metrics.bootstrap import FEW


@dataclass(frozen=True)
class Failure:
    """An arm that came to no result in a cell, and why."""

    arm: str
    cell: Cell
    why: str


@dataclass(frozen=True)
class Row:
    """An arm over its seeds. n: images measured, of each; n_of_a: mean number of images of A; means: measure -> mean,
    None where it has none.
    """

    arm: str
    seeds: int
    n: int
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
    """One training-set size: its rows in the order of the arms, the last of real images; what they differ by.

    tables: title -> arms and, of two, the second minus the first. detection: (group, sigma over the mean norm, whether
    that is taken from the latents' mean) -> AUROC of log LDS, of the baselines. notes are on the comparisons, run_notes
    on what single runs could not measure well.
    """

    title: str
    train: int | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    tables: Mapping[str, tuple[tuple[str, ...], Comparison | None]]
    detection: Mapping[tuple[str, float, bool], Mean]
    notes: tuple[str, ...]
    run_notes: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """All groups. measures, compared: name -> title, of the tables, and of those that are compared with the control
    (results.csv has all); caption: how it was measured; arrows: name -> to what is better, where that is agreed.
    """

    measures: Mapping[str, str]
    compared: Mapping[str, str]
    groups: tuple[Group, ...]
    caption: str
    arrows: Mapping[str, str]


def summarise(
    plan: Plan, results: Sequence[Result], real: Sequence[Result] = (), failures: Sequence[Failure] = ()
) -> Summary:
    """What is there so far; an arm without any result is left out.

    Args:
        real: of the training images of each cell (`read_result(baseline, "train")`).
    """
    named = [f"{what} of {a}" for a in plan.config.evaluate.attributes for what in ("share", "distance")]
    shares = {name: name for name in named if name.startswith("share") or any(name in r.values for r in results)}
    in_a = {m: m for m in (f"{share} in A" for share in shares) if any(m in r.values for r in results)}
    measures = measures_of(results)
    every = [*(m.name for m in measures if m.shown != "csv"), *shares, *in_a]
    groups = []
    for train in dict.fromkeys(cell.train for cell in plan.cells):
        found = [r for r in results if r.cell.train == train]
        failed = [f for f in failures if f.cell.train == train]
        if found or failed:
            of_real = [r for r in real if r.cell.train == train]
            groups.append(_group(plan, train, found, of_real, failed, every))
    return Summary(
        {**{m.name: m.title for m in measures if m.shown != "csv"}, **shares, **in_a},
        {**{m.name: m.title for m in measures if m.shown == "compared"}, **shares},
        tuple(groups),
        _caption(plan, results),
        {m.name: m.arrow for m in measures},
    )


def _group(
    plan: Plan,
    train: int | None,
    results: Sequence[Result],
    real: Sequence[Result],
    failures: Sequence[Failure],
    every: Sequence[str],
) -> Group:
    asked = plan.config.experiment
    of = {name: [r for r in results if r.arm == name] for name in (BASELINE, *asked.arms)}
    rows = [_row(name, found, every) for name, found in {**of, REAL: list(real)}.items() if found]
    notes = [f"{f.arm}, seed {f.cell.seed}, came to no result: {f.why.splitlines()[0]}" for f in failures]
    comparisons = []
    for name, control in ((name, asked.control_of(name)) for name in of if of[name]):
        if control is None:
            continue
        if not {r.cell for r in of[name]} & {r.cell for r in of[control]}:
            notes.append(f"{name} is not compared: its control {control} has no result at the same seed.")
            continue
        comparisons.append(_comparison(name, control, of, every))
        notes += _not_matched(plan, name, control)
    few = min((d.n for c in comparisons for d in c.differences.values() if d is not None), default=FEW)
    if 1 < few < FEW:
        notes.append(
            f"{few} seeds: a bootstrap interval cannot leave the range of so few differences and is too short. "
            "Student’s interval stands beside that of the Fréchet distance, and in differences.csv for every measure."
        )
    tables = {}
    for title, names in asked.tables.items():
        first, second = names if len(names) == 2 else ("", "")
        both = first and {r.cell for r in of[first]} & {r.cell for r in of[second]}
        tables[title] = (names, _comparison(second, first, of, every) if both else None)
        if both:
            notes += [f"{title}: {note}" for note in _not_matched(plan, second, first)]
    for name in dict.fromkeys(name for r in results for name in r.probes):
        found = [r.probes[name] for r in results if name in r.probes]
        notes.append(
            f"Shares of {name} are estimates by a probe, corrected by its errors on test images (balanced accuracy "
            f"{min(found):.2f} to {max(found):.2f}). Where it plainly errs otherwise on generated images, none. "
            "Shares in A are those of its parents’ labels."
        )
    sizes = {r.train_images for r in results if r.train_images is not None}
    known = train if train is not None else sizes.pop() if len(sizes) == 1 else None
    detected = dict.fromkeys(key for r in of[BASELINE] for key in r.detection)
    return Group(
        "training images as they are" if known is None else f"{known:,} training images",
        train,
        tuple(dict.fromkeys(r.cell.seed for r in results)),
        tuple(rows),
        tuple(comparisons),
        tables,
        {key: mean_and_error([r.detection[key] for r in of[BASELINE] if key in r.detection]) for key in detected},
        tuple(dict.fromkeys(notes)),
        tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )


def _row(name: str, found: Sequence[Result], measures: Iterable[str]) -> Row:
    counts = [r.n_of_a for r in found if r.n_of_a is not None]
    means = {m: _mean([r.values.get(m) for r in found]) for m in measures}
    return Row(name, len(found), found[0].setting.n, sum(counts) / len(counts) if counts else None, means)


def _comparison(arm: str, control: str, of: Mapping[str, Sequence[Result]], measures: Iterable[str]) -> Comparison:
    return Comparison(arm, control, {m: _difference(of[arm], of[control], m) for m in measures})


def _mean(values: Sequence[float | None]) -> Mean | None:
    known = [v for v in values if v is not None]
    return mean_and_error(known) if known else None


def _difference(arm: Sequence[Result], control: Sequence[Result], measure: str) -> Difference | None:
    theirs = {r.cell: r.values.get(measure) for r in control}
    pairs = [(r.values.get(measure), theirs.get(r.cell)) for r in arm]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return paired_difference([a for a, _ in known], [b for _, b in known], name=measure) if known else None


def _not_matched(plan: Plan, arm: str, control: str) -> list[str]:
    """A control that had fewer or other steps, or another baseline, proves little."""
    runs = {run.arm: run for run in plan.of(plan.cells[0])}
    notes = []
    had = {name: _training(runs[name]) for name in (arm, control)}
    if had[arm] != had[control]:
        notes.append(f"{arm} had {had[arm]}, its control {control} {had[control]}: they are not compute-matched.")
    one, two = (runs[name].config.dump() for name in (arm, control))
    if other := [name for name in ("vae", "train") if one[name] != two[name]]:
        notes.append(f"{arm} starts from another baseline than its control {control}: {', '.join(other)} differ.")
    return notes


def _training(run: ArmRun) -> str:
    if run.arm == BASELINE:
        return "no further steps"
    tuned = run.config.finetune
    more = ", with a discriminator" if tuned.objective.adversarial.weight else ""
    return f"{tuned.steps:,} further steps of {tuned.batch_size} training images{more}"


def _caption(plan: Plan, results: Sequence[Result]) -> str:
    config, seeds = plan.config, ", ".join(map(str, plan.config.experiment.seeds))
    tuned = config.finetune
    of_a = "" if not tuned.mixing else f", and {round(tuned.mixing * tuned.batch_size)} of A where an arm trains on A"
    size = domain_of(config).size(config.data)
    parts = [
        f"{size and f'{size}; '}baseline {config.train.steps:,} steps × {config.train.batch_size} images, arms "
        f"{tuned.steps:,} further steps × {tuned.batch_size} training images{of_a}; seeds {seeds} (each draws split, "
        "weights and candidates anew, from the same images); mean ± standard error"
    ]
    for said in dict.fromkeys(replace(r.setting, prior="") for r in results):
        priors: dict[str, list[str]] = {}
        for result in results:
            if replace(result.setting, prior="") == said:
                priors.setdefault(result.setting.prior, []).append(result.arm)
        most_first = sorted(priors.items(), key=lambda item: -len(item[1]))
        others = "".join(f"; {prior} in {', '.join(dict.fromkeys(arms))}" for prior, arms in most_first[1:])
        parts.insert(
            0,
            f"{said.n:,} images drawn from each model (prior {most_first[0][0]}{others}) against {said.n_test:,} test "
            f"images; features: {said.extractor}, {said.dimension:,} dimensions; k = {said.k}",
        )
    return domain_of(config).words("; ".join(parts) + ".")
