"""Stage `encode`: `images/` to `latents/` (key, split, z, attributes), through a pool of (GPU) encoder actors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import matrix, vectors
from ldsaug_ray.common.digest import table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.images import image_array
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import Counts, UnitResult
from ldsaug_ray.stages.job import Job
from ldsaug_ray.stages.outcome import Outcome
from ldsaug_ray.stages.units import run_units


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Encode every prepared image."""
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
        weights: the autoencoder.
        done: finished by an earlier attempt.
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
        (weights, settings.batch_size, job.run.root, pool.gpus > 0),
        read=ReadPart(images),
        unit_name="images",
    )


def image_parts(job: Job, split: str | None = None) -> list[tuple[str, int]]:
    """Stored parts of `images/` and their rows, in order."""
    job.run.require("prepare")
    return [(f, r) for f, r in job.run.finished_parts("prepare") if split is None or f.startswith(f"images/{split}-")]


class ReadPart:
    """Read one stored part of images."""

    def __init__(self, run: Location):
        self.run = run

    def __call__(self, unit: pa.Table) -> pa.Table:
        return (self.run / unit["file"][0].as_py()).read_table()


class EncodeWorker:
    """Holds the encoder; one stored part a call."""

    def __init__(self, weights: Location, batch_size: int, run: Location, gpu: bool):
        from ldsaug_ray.models import load_vae

        self.vae = load_vae(weights, "cuda" if gpu else "cpu")
        self.batch_size, self.run = batch_size, run

    def __call__(self, unit: int, images: pa.Table) -> UnitResult:
        from ldsaug_ray.models import posterior_means

        z = posterior_means(self.vae, image_array(images), self.batch_size)
        columns = {"key": images["key"], "split": images["split"], "z": vectors(z)}
        if "attributes" in images.column_names:
            columns["attributes"] = images["attributes"]
        table = pa.table(columns)
        file = f"latents/part-{unit:06d}.parquet"
        (self.run / file).write_table(table)
        counts, extra = Counts(len(images), len(table)), {"latent_dim": z.shape[1]}
        return UnitResult(unit, counts, table_digest(table), (file,), (len(table),), extra)


def in_memory(shape: tuple[int, int]) -> np.ndarray:
    """An array to fill, float32."""
    return np.empty(shape, np.float32)


def read_latents(
    job: Job, split: str, allocate: Callable[[tuple[int, int]], np.ndarray] = in_memory
) -> tuple[list[str], np.ndarray]:
    """Keys, sorted, and z float32[N, d] of one split, written to what `allocate` gives for that shape.

    Raises:
        InputError: a key comes twice, or latents differ in dimension.
    """
    job.run.require("encode")
    folder = job.run.folder("latents")
    columns, places, keys = ["key", "split"], [], []
    for file in folder.files(".parquet"):  # first the keys, for their order; then the latents, a part at a time
        table = file.read_table(columns)
        places.append(np.flatnonzero(pa.compute.equal(table["split"], split).to_numpy()))
        keys += table["key"].take(places[-1]).to_pylist()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    keys = [keys[n] for n in order]
    if any(a == b for a, b in pairwise(keys)):
        raise InputError(f"{folder.uri}: a key comes twice; encode again")
    if not keys:
        return [], np.empty((0, job.run.require("encode", "latent_dim")), np.float32)
    rank, done = np.empty(len(keys), np.int64), 0
    rank[order] = np.arange(len(keys))
    z: np.ndarray | None = None
    for file, inside in zip(folder.files(".parquet"), places, strict=True):
        found = matrix(file.read_table(["z"])["z"].take(inside))
        z = allocate((len(keys), found.shape[1])) if z is None else z
        if found.shape[1] != z.shape[1]:
            raise InputError(f"{folder.uri}: parts with latents of different dimensions; encode again")
        z[rank[done : done + len(inside)]] = found
        done += len(inside)
    assert z is not None
    return keys, z
