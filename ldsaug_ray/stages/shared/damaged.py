"""Latents of damaged copies of stored items, by a pool of encoders; kept as features are, below `features/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import matrix, vectors
from ldsaug_ray.common.digest import fingerprint, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains import domain_of
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.stages.encode import ReadPart
from ldsaug_ray.stages.shared.features import ImageSet
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.runner import ensure
from ldsaug_ray.stages.shared.units import run_units

AS_IS: Final = "as is"  # beside the domain's damages: none at all


def latents_of(job: Job, images: ImageSet, kinds: Sequence[str], models: RunDir | None = None) -> dict[str, np.ndarray]:
    """Latents float32[N, d] of the images of a set after each kind of damage, by the baseline's encoder.

    They come in the order of their keys, as those of `read_latents`.

    Args:
        kinds: of the domain's, or AS_IS.
        models: the run directory whose encoder it is; none: the job's own.
    """
    trained = models or job.run
    inner = replace(job, run=RunDir(job.run.folder("features/damaged")))
    identity = fingerprint(
        [images.digest, images.parts, list(kinds), job.config.seed, trained.require("train", "digest")]
    )
    weights = trained.folder("train/vae.safetensors")
    ensure(inner, "features", identity, lambda job, done: _compute(job, images, kinds, weights, done))
    tables = [(inner.run.root / file).read_table() for file, _ in inner.run.finished_parts("features")]
    table = pa.concat_tables(tables).sort_by("key")
    return {kind: matrix(table.filter(pa.compute.equal(table["kind"], kind))["z"]) for kind in kinds}


def _compute(
    job: Job, images: ImageSet, kinds: Sequence[str], weights: Location, done: Mapping[int, UnitResult]
) -> Outcome:
    pool = job.pool(job.config.encode.workers, "encode", limit=len(images.parts))
    rows = [n for _, n in images.parts]
    results = run_units(
        job,
        "features",
        {n: pa.table({"file": [file]}) for n, (file, _) in enumerate(images.parts)},
        dict(enumerate(rows)),
        done,
        pool,
        DamageWorker,
        (kinds, list(accumulate(rows, initial=0)), weights, job.config, job.run.root, pool.gpus > 0),
        read=ReadPart(images.root),
        unit_name="images to damage" if kinds != (AS_IS,) else "images of something else",
    )
    return Outcome.of(results.values())


class DamageWorker:
    """Holds the encoder; one stored part a call."""

    def __init__(
        self,
        kinds: Sequence[str],
        starts: Sequence[int],
        weights: Location,
        config: Config,
        out: Location,
        gpu: bool,
    ):
        from ldsaug_ray.models import load_vae

        self.vae = load_vae(weights, "cuda" if gpu else "cpu")
        self.kinds, self.starts, self.config, self.out = kinds, starts, config, out

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        from ldsaug_ray.models import encode_batch

        domain = domain_of(self.config)
        batch = domain.unpack(part)
        numbers = self.starts[unit] + np.arange(len(batch))  # so that no batch or worker changes the damage
        tables = []
        for kind in self.kinds:
            seen = batch if kind == AS_IS else domain.damage(batch, kind, self.config.seed, numbers)
            z = encode_batch(self.vae, seen, self.config.encode.batch_size)
            tables.append(pa.table({"key": part["key"], "kind": [kind] * len(part), "z": vectors(z)}))
        table = pa.concat_tables(tables)
        file = f"parts/part-{unit:06d}.parquet"
        (self.out / file).write_table(table)
        return UnitResult(unit, Counts(len(part), len(part)), table_digest(table), (file,), (len(part),))
