"""Features of stored images, by a pool of actors: once for each set and extractor, kept below `features/`.

A set's folder is kept as a run directory is: a manifest, markers, and Parquet parts with the columns key, features and
sharpness. It is named by what the set is for, and its fingerprint covers the images' digest and the extractor's
weights: other images or another extractor replace it, nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ldsaug_ray.columns import matrix, vectors
from ldsaug_ray.config import Config
from ldsaug_ray.digest import fingerprint, table_digest
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.images.stream import images_of
from ldsaug_ray.metrics import Extractor, open_extractor, sharpness
from ldsaug_ray.rundir import Counts, RunDir, UnitResult, total
from ldsaug_ray.stages._job import Job, cluster_resources, pool_of
from ldsaug_ray.stages._outcome import Outcome
from ldsaug_ray.stages._units import run_units
from ldsaug_ray.stages.encode import ReadPart
from ldsaug_ray.stages.runner import ensure
from ldsaug_ray.storage import Location


@dataclass(frozen=True)
class ImageSet:
    """Stored images: what they are called, the run directory they lie in, (file, rows) of each part, their digest."""

    name: str
    root: Location
    parts: Sequence[tuple[str, int]]
    digest: str

    def __len__(self) -> int:
        return sum(rows for _, rows in self.parts)

    def pictures(self, rows: Sequence[int]) -> tuple[list[str], list[np.ndarray]]:
        """Keys and images uint8[H, W, 3] of some rows, counted over all parts; only their parts are read."""
        ends = np.cumsum([0, *(n for _, n in self.parts)])
        where = (np.searchsorted(ends, rows, side="right") - 1).tolist()
        keys, found = [""] * len(rows), [np.empty(0, np.uint8)] * len(rows)
        for part in sorted(set(where)):
            wanted = [n for n, at in enumerate(where) if at == part]
            table = (self.root / self.parts[part][0]).read_table(["key", "image"])
            table = table.take(pa.array([rows[n] - int(ends[part]) for n in wanted]))
            for n, key, image in zip(wanted, table["key"].to_pylist(), images_of(table), strict=True):
                keys[n], found[n] = key, image
        return keys, found


@dataclass(frozen=True, eq=False)
class SetFeatures:
    """Of the images of a set, in the order of its parts: float32[N, C], and sharpness float64[N]."""

    features: np.ndarray
    sharpness: np.ndarray


def opened(config: Config, device: str = "cpu") -> Extractor:
    """The configured extractor.

    Raises:
        ConfigError: none is set, it is unknown, or needs a package that is not installed.
        InputError: its weights are missing or damaged, or it does not do its job.
    """
    settings = config.evaluate
    if settings.extractor is None:
        raise ConfigError("evaluate.extractor is not set; give inception, or a TorchScript file that makes features")
    return open_extractor(settings.extractor, device=device, batch_size=settings.batch_size, resize=settings.resize)


def features_of(job: Job, images: ImageSet, extractor: str) -> SetFeatures:
    """Features of a set: computed where they are not there yet.

    Args:
        job: the invocation.
        images: the set.
        extractor: its fingerprint.

    Raises:
        InputError: the extractor cannot take these images, or gives values that are not finite.
    """
    inner = replace(job, run=RunDir(job.run.folder(f"features/{images.name}")))
    # parts too: a digest knows no order, and rows of features must be those of the images
    identity = fingerprint([images.digest, images.parts, extractor])
    ensure(inner, "features", identity, lambda job, done: _compute(job, images, done))
    tables = [(inner.run.root / file).read_table() for file, _ in inner.run.finished_parts("features")]
    z = np.concatenate([matrix(t["features"]) for t in tables])
    return SetFeatures(z, np.concatenate([t["sharpness"].to_numpy() for t in tables]))


def _compute(job: Job, images: ImageSet, done: Mapping[int, UnitResult]) -> Outcome:
    settings = job.config.evaluate
    pool = pool_of(settings.workers, "evaluate", cluster_resources(), limit=len(images.parts))
    results = run_units(
        job,
        "features",
        {n: pa.table({"file": [file]}) for n, (file, _) in enumerate(images.parts)},
        {n: rows for n, (_, rows) in enumerate(images.parts)},
        done,
        pool,
        FeatureWorker,
        (job.config, job.run.root, pool.gpus > 0),
        read=ReadPart(images.root),
        unit_name=f"images of {images.name}",
    )
    return Outcome(*total(results.values()))


class FeatureWorker:
    """Holds the extractor; one stored part a call."""

    def __init__(self, config: Config, out: Location, gpu: bool):
        self.extractor = opened(config, "cuda" if gpu else "cpu")
        self.out = out

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        images = images_of(part)
        table = pa.table(
            {"key": part["key"], "features": vectors(self.extractor(images)), "sharpness": sharpness(images)}
        )
        file = f"parts/part-{unit:06d}.parquet"
        (self.out / file).write_table(table)
        return UnitResult(unit, Counts(len(part), len(table)), table_digest(table), (file,), (len(table),))
