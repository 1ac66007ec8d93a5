"""Stage `encode`: `images/` to `latents/` (key, split, z, attributes), through a pool of encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.digest import table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.run.directory import Counts, UnitResult
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.units import run_units

STAGE = declare(
    Stage(
        name="encode",
        does="images to latents (posterior means)",
        unit="images",
        needs=("prepare", "train"),
        writes=("latents", "quarantine/encode"),
        sections=("encode",),
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Encode every prepared item."""
    results = encode_parts(job, image_parts(job), job.run.root, job.run.folder("train/vae.safetensors"), done)
    return Outcome.of(results.values(), {"latent_dim": int(next(iter(results.values())).extra["latent_dim"])})


def encode_parts(
    job: Job, parts: Sequence[tuple[str, int]], images: Location, weights: Location, done: Mapping[int, UnitResult]
) -> dict[int, UnitResult]:
    """Encode stored parts to `latents/` of the job's run directory; a unit is one part.

    Args:
        job: where latents and markers go.
        parts: (file below `images`, rows).
        images: the run directory that holds them.
    """
    settings = job.config.encode
    pool = job.pool(settings.workers, "encode", limit=len(parts))
    return run_units(
        job,
        "encode",
        {n: pa.table({"file": [file]}) for n, (file, _) in enumerate(parts)},
        {n: rows for n, (_, rows) in enumerate(parts)},
        done,
        pool,
        EncodeWorker,
        (weights, settings.batch_size, job.run.root, pool.gpus > 0, job.config.domain),
        read=ReadPart(images),
        unit_name="images",
    )


def image_parts(job: Job, split: str | None = None) -> list[tuple[str, int]]:
    """Stored parts of `images/` and their rows, in order."""
    job.run.require("prepare")
    return [(f, r) for f, r in job.run.finished_parts("prepare") if split is None or f.startswith(f"images/{split}-")]


class ReadPart:
    """Read one stored part of items."""

    def __init__(self, run: Location):
        self.run = run

    def __call__(self, unit: pa.Table) -> pa.Table:
        return (self.run / unit["file"][0].as_py()).read_table()


class EncodeWorker:
    """Holds the encoder; one stored part a call."""

    def __init__(self, weights: Location, batch_size: int, run: Location, gpu: bool, domain: str):
        from ldsaug_ray.models import load_vae

        self.vae = load_vae(weights, "cuda" if gpu else "cpu")
        self.batch_size, self.run, self.domain = batch_size, run, DOMAINS.get(domain)

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        from ldsaug_ray.models import encode_batch

        z = encode_batch(self.vae, self.domain.unpack(part), self.batch_size)
        columns = {"key": part["key"], "split": part["split"], "z": vectors(z)}
        if "attributes" in part.column_names:
            columns["attributes"] = part["attributes"]
        table = pa.table(columns)
        file = f"latents/part-{unit:06d}.parquet"
        (self.run / file).write_table(table)
        counts, extra = Counts(len(part), len(table)), {"latent_dim": z.shape[1]}
        return UnitResult(unit, counts, table_digest(table), (file,), (len(table),), extra)
