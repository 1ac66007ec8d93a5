"""What a command prints at its end: rows in and out of each stage, what was kept and why, what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.lds.findings import coinciding, latents_coincide
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.pipeline import COMMANDS
from ldsaug_ray.run.progress import print_table
from ldsaug_ray.selection import sentences_of
from ldsaug_ray.stages.prepare import same_picture

if TYPE_CHECKING:
    from ldsaug_ray.metrics import Evaluated


def print_summary(
    run: RunDir, names: list[str], happened: Mapping[str, str], said: Callable[[str], str] | None = None
) -> None:
    """Rows in, kept, dropped, quarantined, seconds and rate of each stage. said: by custom as `words_of`."""
    said = said or words_of(run)
    head, rows = ("stage", "in", "kept", "dropped", "quarantined", "seconds", "rate", ""), []
    words = {"complete": "already complete", "continue": "continued", "run": "", "waiting": ""}
    for name in names:
        entry = run.require(name)
        counts = [f"{entry[k]:,}" for k in ("rows_in", "rows_out", "rows_dropped", "rows_quarantined")]
        rate = entry["rows_per_second"]
        speed = said(f"{rate:,.0f} {COMMANDS[name].unit}") + "/s" if rate and name != "report" else ""
        rows.append((name, *counts, f"{entry['seconds']:,.1f}", speed, words[happened.get(name, "run")]))
    print_table(f"run {run.root.shown}", head, rows, 110, "lrrrrrrl")
    selected = run.entry("select")
    if selected and "select" in names:
        print(said("\n".join(sentences_of(selected))))
    if alike := _alike(run, names):
        print(said(alike))
    decoded = run.entry("decode")
    if decoded and "decode" in names and "sharpest" in decoded:
        print(
            f"kept {decoded['rows_out']:,} of {decoded['rows_in']:,} decoded images, the sharpest: variance of the "
            f"Laplacian ≥ {decoded['least_sharpness']:.4g}"
        )


def words_of(run: RunDir) -> Callable[[str], str]:
    """Sentences on images, in the words of the run's domain."""
    return DOMAINS.get((run.saved_config() or {}).get("domain", "images")).words


def print_measures(found: Evaluated, said: Callable[[str], str] = str) -> None:
    """A row a measure, a column a set: what `evaluate` found. said: as `words_of`."""
    from ldsaug_ray.metrics import by_bandwidth, measures_taken
    from ldsaug_ray.metrics.downstream import sentence as downstream_sentence

    measures = measures_taken(found.own, [of.readings for of in found.sets.values()])
    title = (
        f"against {found.n_test:,} test images; features: {found.extractor.name}, "
        f"{found.extractor.dimension:,} dimensions; k = {found.k}"
    )
    rows = [[said("images"), *(f"{readings.n:,}" for readings in found.sets.values())]]
    for measure in measures:
        values = (readings.value(measure.name) for readings in found.sets.values())
        rows.append([f"{measure.title} {measure.arrow}".strip(), *("" if v is None else f"{v:.3g}" for v in values)])
    print_table(said(title), ("", *found.sets), rows, 150)
    if found.downstream:
        print(said(downstream_sentence(found.downstream)))
    if not found.detection:
        return
    found_at = by_bandwidth(found.detection)
    head = ("σ / mean norm", "norm from", *(x.group for x in next(iter(found_at.values()))))
    areas = [
        (f"{scale:g}", "mean" if centred else "origin", *(f"{x.auroc.value:.3f}" for x in row))
        for (scale, centred), row in found_at.items()
    ]
    print_table(said("AUROC of log LDS: test images against"), head, areas, 150, "r")


def _alike(run: RunDir, names: list[str]) -> str:
    """That all latents coincide, or will; empty where not."""
    n, least = (run.entry("prepare") or {}).get("train_images"), (run.entry("select") or {}).get("threshold_log_lds")
    if n is None:  # no run, but a folder of samples
        return ""
    if "select" in names and least is not None and latents_coincide(least):
        return coinciding(n)
    if "prepare" in names and run.require("prepare").get("identical_images"):
        return same_picture(n)
    return ""
