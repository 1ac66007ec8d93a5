"""How long 10^6, 10^8 and 10^9 images and candidates would take, and cost: measured on one worker, checked on two.

    .venv/bin/python benchmarks/scale.py [CONFIG] [name=value ...] [--workers 64] [--price 0.05] [--gbit 1.5]

A stage of n rows in units of u rows on W workers is taken to last

    start + max(compute, traffic, merge) + n / u x listing
    compute = n / (W rate)              rate: rows/s of one worker, once warm
    traffic = n bytes / (W bandwidth)   bytes: read and written a row, by the files; bandwidth: of a worker, assumed
    merge   = n / u x driver            driver: seconds in which the one driver deals with a unit that does nothing
    listing: seconds a unit to list and read the markers at the end of a stage
    start: what is left of the seconds of the run with one worker

rate, bytes, driver, listing and start come from one worker a stage; two are then predicted and measured. u is what the
settings make it for n. An exact score costs a candidate as much as there are latents: its rate is that measured, times
the latents measured over n; and the n latents are read by the driver and sent to every worker's machine, which is added
to start. With noise (0.5) the same, at the rate that candidates with a row each have. By FAISS's inverted lists: what
lists.py fits, where the driver trains the index and the workers fill it and score, two parents for nine candidates;
with a sixteenth of the lists probed, as by default, and with 64 of them. select reads all scores on the driver; decode
makes images of the share of candidates that it keeps. What is
assumed: that workers do not disturb each other, storage gives each its bandwidth, and lists and markers as fast as the
disk here; the source's own reading in prepare is not counted. Trainings take steps times what a step takes, whatever n.

Last, all candidates of 10^8 are planned (parents and alpha, no scores), and the memory that this takes is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from lists import Model
from rich.console import Console
from rich.table import Table

from ldsaug_ray.config import Config, load_config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.lds import candidates
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.stages import decode, encode, prepare, score
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import run_stages
from ldsaug_ray.stages.shared.units import run_units

STAGES = {"prepare": prepare, "encode": encode, "score": score, "decode": decode}
FOLDERS = {"prepare": ("images",), "encode": ("images", "latents"), "score": ("scores",), "decode": ("augmented",)}
SIZES = (30_000, 10**6, 10**8, 10**9)
EMPTY_UNITS = 300
CPUS = 8  # of a machine; they share its network
PLANNED, LATENTS = 10**8, 10**8


@dataclass(frozen=True)
class Measured:
    """A stage on some workers."""

    rows: int
    units: int
    seconds: float
    rate: float
    bytes_a_row: float
    listing: float

    @property
    def start(self) -> float:
        """Seconds that neither rows nor units account for, where one worker did it."""
        return max(0.0, self.seconds - self.rows / self.rate - self.units * self.listing)

    def predicted(
        self, rows: float, unit: float, workers: int, driver: float, bandwidth: float, slower: float
    ) -> float:
        """Seconds on so many workers, of rows that take `slower` times as long, in units of `unit` rows."""
        compute = rows * slower / (workers * self.rate)
        traffic = rows * self.bytes_a_row / (workers * bandwidth)
        return self.start + max(compute, traffic, rows / unit * driver) + rows / unit * self.listing


def measured(config: Config, run: RunDir, name: str, workers: int) -> Measured:
    """Do the stage once more on this many workers of one CPU."""
    section = "data" if name == "prepare" else name
    changed = getattr(config, section)
    asked = changed.workers.model_copy(update={"count": workers, "cpus": 1})
    config = config.model_copy(update={section: changed.model_copy(update={"workers": asked})})
    started = time.perf_counter()
    run.begin(name, f"{workers} workers")
    outcome = STAGES[name].run(Job(config, run, Console(quiet=True), engine_of(config)), {})
    run.finish(name, f"{workers} workers", outcome.counts, outcome.digest, 1.0, 0, **outcome.facts)
    seconds = time.perf_counter() - started
    marks = sorted(m.info().mtime.timestamp() for m in (run.root / f"_progress/{name}").files(".unit.json"))
    started = time.perf_counter()
    run.finished_units(name), run.file_count(name)
    listing = time.perf_counter() - started
    rows, units = outcome.counts.rows_in, len(marks)
    if units < 2:
        raise SystemExit(f"{name} has one unit with these settings: there is no rate to measure; take more rows")
    warm = max(1, units // 4)
    rate = (units - warm) * (rows / units) / (marks[-1] - marks[warm - 1])
    size = sum(f.info().size for folder in FOLDERS[name] for f in (run.root / folder).files())
    return Measured(rows, units, seconds, rate, size / rows, listing / units)


class Nothing:
    """A worker whose units are done at once."""

    def __call__(self, unit: int, table: pa.Table) -> UnitResult:
        return UnitResult(unit, Counts(1, 1), 0)


def driver_seconds(config: Config, run: RunDir) -> float:
    """Seconds a unit of which nothing is asked; the workers write a marker, nothing else."""
    finished: list[float] = []

    def note(results: Mapping[int, UnitResult]) -> None:
        finished.append(time.perf_counter())

    units = {n: pa.table({"n": [n]}) for n in range(EMPTY_UNITS)}
    job = Job(config, run, Console(quiet=True), engine_of(config))
    run_units(job, "nothing", units, dict.fromkeys(units, 1), {}, Pool(2, 1, 0, None), Nothing, (), check=note)
    warm = EMPTY_UNITS // 4
    return (finished[-1] - finished[warm]) / (len(finished) - 1 - warm)


def unit_of(config: Config, name: str, n: int) -> int:
    """Rows of a unit where there are n."""
    if name == "score":
        return config.score.model_copy(update={"n_candidates": n}).unit_candidates
    return int({"prepare": config.data, "encode": config.data, "decode": config.decode}[name].part_rows)


def plan(config: Config) -> None:
    """Every candidate of 10^8, a unit at a time."""
    score = config.score.model_copy(update={"n_candidates": PLANNED})
    started, total, step = time.perf_counter(), 0, score.unit_candidates
    for first in range(0, PLANNED, step):
        total += len(candidates(LATENTS, score.alphas, first, min(first + step, PLANNED), config.seed).id)
    assert total == PLANNED
    # not ru_maxrss, which begins with that of the process that started this one
    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = int(peak_kib) * 1024
    print(
        f"{total:,} candidates of {LATENTS:,} latents planned in units of {step:,} in "
        f"{time.perf_counter() - started:.1f} s; peak memory of the process {peak / 2**20:,.0f} MiB"
    )
    assert peak < 2**30, "more than 1 GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/celeba10k.yaml")
    parser.add_argument("overrides", nargs="*", metavar="name=value")
    parser.add_argument("--workers", type=int, default=64, help="CPUs of the cluster that is predicted")
    parser.add_argument("--price", type=float, default=0.05, help="of a CPU, dollars an hour")
    parser.add_argument("--gbit", type=float, default=1.5, help="network of a CPU's share of its machine, Gbit/s")
    parser.add_argument("--plan", action="store_true", help="the planning alone")
    asked = parser.parse_intermixed_args()
    if asked.plan:
        plan(load_config(asked.config, asked.overrides))
        return
    with tempfile.TemporaryDirectory() as folder:
        short = ["train.steps=20", "ray.num_cpus=2", "tracking.enabled=false", f"run_dir={folder}/run"]
        config = load_config(asked.config, [*asked.overrides, *short])
        run = open_run_dir(config)
        with engine_of(config) as engine:
            run_stages(Job(config, run, Console(), engine), ["prepare", "train", "encode", "score", "select", "decode"])
            driver = driver_seconds(config, run)
            one = {name: measured(config, run, name, 1) for name in STAGES}
            two = {name: measured(config, run, name, 2) for name in STAGES}
            noisy = config.model_copy(update={"score": config.score.model_copy(update={"noise": 0.5})})
            one["score, noise"] = measured(noisy, run, "score", 1)
        report(config, run, one, two, driver, asked)
    sys.stdout.flush()
    command = [sys.executable, os.path.abspath(__file__), asked.config, *asked.overrides, "--plan"]
    subprocess.run(command, check=True)


def report(
    config: Config,
    run: RunDir,
    one: Mapping[str, Measured],
    two: Mapping[str, Measured],
    driver: float,
    asked: argparse.Namespace,
) -> None:
    """Both tables."""
    torch.set_num_threads(1)  # a worker's
    bandwidth = asked.gbit * 1e9 / 8
    table = Table(title="one worker, and two as predicted from it", title_justify="left")
    for title in ("stage", "rows", "units", "start, s", "rows/s", "bytes/row", "listing, ms/unit"):
        table.add_column(title, justify="right" if title != "stage" else "left")
    for title in ("one, s", "two predicted, s", "two measured, s", "ratio"):
        table.add_column(title, justify="right")
    for name in two:
        m = one[name]
        guess, found = m.predicted(m.rows, m.rows / m.units, 2, driver, bandwidth, 1.0), two[name].seconds
        numbers = [f"{m.rows:,}", f"{m.units}", f"{m.start:.1f}", f"{m.rate:,.0f}", f"{m.bytes_a_row:,.0f}"]
        times = [f"{m.seconds:.1f}", f"{guess:.1f}", f"{found:.1f}", f"{guess / found:.2f}"]
        table.add_row(name, *numbers, f"{1e3 * m.listing:.0f}", *times)
    console = Console(width=150)
    console.print(table)
    print(f"the driver deals with a unit in {1e3 * driver:.1f} ms")
    latents = int(run.require("score", "latents"))
    d = int(run.require("encode", "latent_dim"))
    lists = Model.fitted(d)
    table = Table(
        title=f"predicted: n images and n candidates, {asked.workers} workers of one CPU at {asked.price:g} $/h, "
        f"{asked.gbit:g} Gbit/s each; d = {config.vae.latent_dim}, {config.data.resolution} px",
        title_justify="left",
    )
    table.add_column("stage")
    for n in SIZES:
        table.add_column(f"n = {n:,}", justify="right")
    select = run.require("select")
    kept = select["rows_out"] / select["rows_in"]
    rows: dict[str, list[float]] = {}
    sent = [2 * 4 * n * d / (CPUS * bandwidth) for n in SIZES]  # latents, read by the driver and sent to every machine
    for name, m in one.items():
        exact = name.startswith("score")
        rows[name] = [
            m.predicted(
                n * (kept if name == "decode" else 1.0),
                unit_of(config, name.split(",")[0], n),
                asked.workers,
                driver,
                bandwidth,
                n / latents if exact else 1.0,
            )
            + (more if exact else 0.0)
            for n, more in zip(SIZES, sent, strict=True)
        ]
    for title, probes in (("score, FAISS", None), ("score, FAISS, 64 lists probed", 64)):
        costs = [lists.predicted(n, n, 2 * n // 9, probes) for n in SIZES]
        rows[title] = [c.train + (c.add + c.score) / asked.workers + more for c, more in zip(costs, sent, strict=True)]
    rows["select"] = [n * select["seconds"] / select["rows_in"] for n in SIZES]
    for title, seconds in rows.items():
        each = [s / 3600 for s in seconds]
        table.add_row(title, *(f"{h:,.2f} h, {h * asked.workers * asked.price:,.0f} $" for h in each))
    console.print(table)


if __name__ == "__main__":
    main()
