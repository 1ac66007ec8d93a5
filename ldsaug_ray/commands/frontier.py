"""`ldsaug frontier`: rules and samplers compared at equal authenticity; a table, a figure, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.config import Config
from ldsaug_ray.domains import domain_of
from ldsaug_ray.engines import engine_of
from ldsaug_ray.errors import MissingStageError
from ldsaug_ray.metrics import evaluation_stamp
from ldsaug_ray.report import figures
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.progress import make_console, print_table
from ldsaug_ray.run.tracked import tracked_run
from ldsaug_ray.stages import frontier as stage
from ldsaug_ray.stages.shared.checks import require_faiss
from ldsaug_ray.stages.shared.features import opened
from ldsaug_ray.stages.shared.gains import COMPARED, FROM_IMAGES, FROM_RECONSTRUCTIONS, MEASURED
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import ensure, plan_steps, require_current, run_stages


def frontier_command(config: Config, *, dry_run: bool = False, overwrite: bool = False, verbose: bool = False) -> int:
    """Measure every rule and sampler of section `frontier`; prints a table. Returns the exit code.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    before = open_run_dir(config, create=False)
    require_current(config, before, stage.STAGE.needs)
    stage.check(config, before)
    opened(config)
    digests = {need: before.require(need, "digest") for need in stage.STAGE.needs}
    identity = stage.STAGE.fingerprint(config, digests, evaluation_stamp(config))
    folder = RunDir(before.folder("frontier"))
    settings = config.frontier
    rules, samplers = stage.compared(config)
    names = [*(f"noise {share:g}" for share in settings.noise), *samplers, *rules]
    if dry_run:
        state = "complete" if folder.is_complete("frontier", identity) else f"decodes {settings.n:,} latents of each"
        print(f"frontier  {state}: {', '.join(names)}")
        return 0
    with ExitStack() as held:
        run = open_run_dir(config, held=held)
        engine, console = engine_of(config, verbose=verbose), make_console()
        if config.tracking.enabled:
            held.enter_context(tracked_run(config, run, console, ("frontier", "report")))
        if not folder.is_complete("frontier", identity):
            engine.check_place("run_dir", config.run_dir)
            job = Job(config, run, console, held.enter_context(engine))
            ensure(replace(job, run=folder), "frontier", identity, lambda inner, done: stage.run(job, done))
        result = (folder.root / "frontier.json").read_json()
        (folder.root / "frontier.csv").write_bytes(_csv(result).encode())
        (folder.root / "frontier.svg").write_bytes(figures.frontier(result))
        if _has_page(config, run):  # which is to show it
            run.reset("report")
            run_stages(Job(config, run, console, engine), ["report"])
    _print(result, without_password(config.run_dir), domain_of(config).words)
    print(f"frontier  {folder.require('frontier')['sentence']}")
    print(f"figure    {(folder.root / 'frontier.svg').shown}")
    return 0


def _has_page(config: Config, run: RunDir) -> bool:
    """Whether there is a report, of these settings."""
    try:
        require_current(config, run, STAGES["report"].needs)
    except MissingStageError:
        return False
    return plan_steps(config, run, ["report"])[0].state == "complete"


def _print(result: Mapping[str, Any], run: str, words: Callable[[str], str]) -> None:
    title = f"run {run}: baseline’s images; gain at equal AuthPct (against {result['authenticity_by']}), 95 % limits"
    measured = ("n", "Fréchet", "precision", "coverage", "AuthPct", "of recon.")
    modes = result["points"][0]["modes"]
    head = ("sampler", *measured, *modes, "less Fréchet", "precision +", "coverage +")
    rows = []
    for row in result["points"]:
        gains = [_shown(row["gains"].get(name), row["kind"]) for name in COMPARED]
        values = [f"{row['frechet']:.4g}", f"{row['precision']:.3f}", f"{row['coverage']:.3f}"]
        authentic = [f"{row[by]:.1f}" for by in (FROM_IMAGES, FROM_RECONSTRUCTIONS)]
        effective = [f"{row['modes'][name]:.1f}" for name in modes]
        rows.append((row["name"], f"{row['n']:,}", *values, *authentic, *effective, *gains))
    print_table(words(title), head, rows, 170)


def _shown(gain: Mapping[str, float] | None, kind: str) -> str:
    if gain is None:
        return "" if kind == "curve" else "off the curve"
    return f"{gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"


def _csv(result: Mapping[str, Any]) -> str:
    out = io.StringIO()
    names = ["name", "kind", "n", *MEASURED, FROM_IMAGES, FROM_RECONSTRUCTIONS]
    modes = list(result["points"][0]["modes"])
    limits = [f"{name} {part}" for name in COMPARED for part in ("gain", "low", "high")]
    writer = csv.writer(out)
    writer.writerow([*names, *(f"effective {mode}" for mode in modes), *limits])
    for row in result["points"]:
        gains = [row["gains"].get(name) or {} for name in COMPARED]
        values = [*(row.get(name, "") for name in names), *(row["modes"][mode] for mode in modes)]
        writer.writerow([*values, *(g.get(p, "") for g in gains for p in ("gain", "low", "high"))])
    return out.getvalue()
