"""Stage `decode`: `selected/` to `augmented/`, the augmented dataset.

What the domain exports (of images PNG in the Hugging Face layout, so that `datasets` opens them), with z, parents, α,
log LDS and the domain's qualities, of images sharpness. With
`select.which: lds+sharpness` all are decoded to `decoded/` first, since only then it is known which are the sharpest;
those go to `augmented/`. Later stages read `augmented/` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.digest import digest_text, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Interpolation
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.lds import Noise
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, facts_of
from ldsaug_ray.run.latents import Latents, read_latents
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome, worker_seconds
from ldsaug_ray.stages.shared.units import run_units

Bound = tuple[float, int]  # sharpness and candidate of the last image that is kept

STAGE = declare(
    Stage(
        name="decode",
        does="selected latents to images",
        unit="images",
        needs=("train", "encode", "select"),
        writes=("augmented", "decoded"),
        sections=("decode",),
        also=lambda config: {"which": config.select.which} if config.select.rule.sharpest else {},
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Decode every selected candidate; keep the sharpest of them where the rule wants it."""
    job.run.require("select")
    config = job.config
    pieces = []
    for file in job.run.folder("selected").files(".parquet"):
        table = file.read_table(["candidate", "parent_i", "parent_j", "alpha", "log_lds"])
        rows = config.decode.part_rows
        pieces += [table.slice(a, rows).combine_chunks() for a in range(0, len(table), rows)]
    if not pieces:  # no A
        return Outcome(Counts(), digest_text(0))
    pool = job.pool(config.decode.workers, "decode", limit=len(pieces))
    augmented, decoded = job.run.folder("augmented"), job.run.folder("decoded")
    if not config.select.rule.sharpest:
        all_decoded = _decode(job, pieces, done, pool, job.run, "augmented/")
        return Outcome.of(all_decoded, {name: _quartiles(augmented, name) for name in job.domain.qualities})

    # A run directory of its own for the first half: its markers lie beside its files, and are deleted with them
    first = RunDir(decoded)
    before = first.finished_units("decode")
    all_decoded = _decode(job, pieces, before, pool, first, "")
    parts = [(u.files[0], u.file_rows[0]) for u in all_decoded]
    bound = sharpest(decoded, config.decode.sharpest)
    results = run_units(
        job,
        "decode",
        {n: pa.table({"file": [file]}) for n, (file, _) in enumerate(parts)},
        {n: rows for n, (_, rows) in enumerate(parts)},
        done,
        replace(pool, gpus=0.0),
        SharpestWorker,
        (bound, decoded, job.run.root, config.domain),
        unit_name="images",
    )
    resumed = sum(unit.counts.rows_in for unit in before.values())
    facts = {
        "rows_resumed": resumed,
        "sharpest": config.decode.sharpest,
        "least_sharpness": bound[0],
        "sharpness_before": _quartiles(decoded, "sharpness"),
        "sharpness": _quartiles(augmented, "sharpness"),
        **worker_seconds([*all_decoded, *results.values()]),
    }
    return Outcome.of(results.values(), facts, processed=sum(rows for _, rows in parts) - resumed)


def _decode(
    job: Job, pieces: list[pa.Table], done: Mapping[int, UnitResult], pool: Pool, out: RunDir, folder: str
) -> list[UnitResult]:
    """Decode slices of the selected candidates to a folder, "" or ending in /, of the run directory `out`."""
    config = job.config
    results = run_units(
        replace(job, run=out),
        "decode",
        dict(enumerate(pieces)),
        {n: len(t) for n, t in enumerate(pieces)},
        done,
        pool,
        DecodeWorker,
        (
            job.engine.share(read_latents(job.run, "train")),
            job.run.folder("train/vae.safetensors"),
            config.decode.batch_size,
            config.score.interpolation,
            out.root,
            pool.gpus > 0,
            folder,
            Noise.kept(job.run.require("score"), config.seed),
            config.domain,
            facts_of(job.run.root),
        ),
        unit_name="images",
    )
    return [results[n] for n in sorted(results)]


class DecodeWorker:
    """Holds the decoder and the training latents; one slice of the selected candidates a call."""

    def __init__(
        self,
        latents: Latents,
        weights: Location,
        batch_size: int,
        interpolation: Interpolation,
        run: Location,
        gpu: bool,
        folder: str = "augmented/",
        noise: Noise | None = None,
        domain: str = "images",
        facts: Mapping[str, Any] | None = None,
    ):
        from ldsaug_ray.models import load_vae

        self.vae = load_vae(weights, "cuda" if gpu else "cpu")
        self.latents, self.batch_size = latents, batch_size
        self.interpolation: Interpolation = interpolation
        self.run, self.folder, self.noise = run, folder, noise
        self.domain, self.facts = DOMAINS.get(domain), facts or {}

    def __call__(self, unit: int, selected: pa.Table) -> UnitResult:
        from ldsaug_ray.models import decode_batch

        z = self.latents.between(selected, self.interpolation, self.noise)
        names = [f"c{c:012d}" for c in selected["candidate"].to_pylist()]
        batch = decode_batch(self.vae, z, self.batch_size)
        table = pa.table(
            {
                "key": names,
                self.domain.column: self.domain.export(batch, names, self.facts),
                "z": vectors(z),
                **{c: selected[c] for c in ("candidate", "parent_i", "parent_j", "alpha", "log_lds")},
                **self.domain.quality(batch),
            }
        )
        file = f"{self.folder}part-{unit:06d}.parquet"
        (self.run / file).write_table(table.replace_schema_metadata(self.domain.metadata))
        return UnitResult(unit, Counts(len(selected), len(table)), table_digest(table), (file,), (len(table),))


class SharpestWorker:
    """Passes on what is sharp enough; one part of `decoded` a call."""

    def __init__(self, bound: Bound, decoded: Location, run: Location, domain: str):
        self.bound, self.decoded, self.run = bound, decoded, run
        self.metadata = DOMAINS.get(domain).metadata

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        decoded = (self.decoded / part["file"][0].as_py()).read_table()
        least, last = self.bound
        sharp, candidate = decoded["sharpness"].to_numpy(), decoded["candidate"].to_numpy()
        kept = decoded.filter(pa.array((sharp > least) | ((sharp == least) & (candidate <= last))))
        counts = Counts(len(decoded), len(kept), len(decoded) - len(kept))
        if not len(kept):
            return UnitResult(unit, counts, 0)
        file = f"augmented/part-{unit:06d}.parquet"
        (self.run / file).write_table(kept.replace_schema_metadata(self.metadata))
        return UnitResult(unit, counts, table_digest(kept), (file,), (len(kept),))


def sharpest(folder: Location, share: float) -> Bound:
    """Sharpness and candidate of the last that is kept: max(1, floor(share n + 1/2)) of n images, ties by candidate."""
    sharp, candidate = _columns(folder, ["sharpness", "candidate"])
    count = max(1, math.floor(share * len(sharp) + 0.5))
    last = np.lexsort((candidate, -sharp))[count - 1]
    return float(sharp[last]), int(candidate[last])


def _quartiles(folder: Location, name: str) -> dict[str, float]:
    (values,) = _columns(folder, [name])
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"lower": lower, "median": median, "upper": upper}


def _columns(folder: Location, names: list[str]) -> list[np.ndarray]:
    tables = [file.read_table(names) for file in folder.files(".parquet")]
    return [np.concatenate([table[name].to_numpy() for table in tables]) for name in names]
