"""Features of stored items, by a pool of workers: once for each set and extractor, kept below `features/`.

A set's folder is kept as a run directory is: a manifest, markers, and Parquet parts with the columns key, features and
the domain's qualities, of images `sharpness`. It is named by what the set is for, and its fingerprint covers the items'
digest and the extractor's weights: other items or another extractor replace it, nothing else does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import matrix, vectors
from ldsaug_ray.common.digest import fingerprint, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains import Domain, domain_of
from ldsaug_ray.domains.base import Array
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, facts_of
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.units import run_units

if TYPE_CHECKING:
    from ldsaug_ray.metrics import Extractor
    from ldsaug_ray.models import Codec


@dataclass(frozen=True)
class ImageSet:
    """Stored items: what they are called, the run directory they lie in, (file, rows) of each part, their digest.

    decoder: weights that make items of the parts, which then hold latents z in their place.
    """

    name: str
    root: Location
    parts: Sequence[tuple[str, int]]
    digest: str
    decoder: Location | None = None

    def __len__(self) -> int:
        return sum(rows for _, rows in self.parts)

    def batch(self, domain: Domain) -> Array:
        """All items."""
        tables = ((self.root / file).read_table([domain.column]) for file, _ in self.parts)
        return np.concatenate([domain.unpack(table) for table in tables])

    def items(self, rows: Sequence[int], domain: Domain) -> tuple[list[str], Array]:
        """Keys, and a batch of the items, of some rows, counted over all parts; only their parts are read."""
        ends = np.cumsum([0, *(n for _, n in self.parts)])
        where = (np.searchsorted(ends, rows, side="right") - 1).tolist()
        keys, found = [""] * len(rows), [np.empty(0)] * len(rows)
        for part in sorted(set(where)):
            wanted = [n for n, at in enumerate(where) if at == part]
            table = (self.root / self.parts[part][0]).read_table(["key", domain.column])
            table = table.take(pa.array([rows[n] - int(ends[part]) for n in wanted]))
            for n, key, item in zip(wanted, table["key"].to_pylist(), domain.unpack(table), strict=True):
                keys[n], found[n] = key, item
        return keys, np.stack(found)


@dataclass(frozen=True, eq=False)
class SetFeatures:
    """Of the items of a set, in the order of its parts: float32[N, C], and numbers of each by name, float64[N]."""

    features: np.ndarray
    quality: Mapping[str, np.ndarray]

    def usable(self, domain: Domain) -> np.ndarray:
        """Features of the items that have some, such as the valid ones of molecules."""
        found: np.ndarray = self.features[domain.usable(self.quality)]
        return found


def opened(config: Config, device: str = "cpu") -> Extractor:
    """The configured extractor.

    Raises:
        ConfigError: none is set, it is unknown, or needs a package that is not installed.
        InputError: its weights are missing or damaged, or it does not do its job.
    """
    from ldsaug_ray.metrics import open_extractor

    settings = config.evaluate
    if settings.extractor is None:
        raise ConfigError("evaluate.extractor is not set; give inception, or a TorchScript file that makes features")
    return open_extractor(
        settings.extractor,
        device=device,
        batch_size=settings.batch_size,
        resize=settings.resize,
        domain=config.domain,
        facts=facts_of(Location.of(config.run_dir)),
    )


def features_of(job: Job, sets: Sequence[ImageSet], extractor: str) -> dict[str, SetFeatures]:
    """Features of each set, by name: computed where they are not there yet, by one pool for all of them.

    Raises:
        InputError: the extractor cannot take these images, or gives values that are not finite.
    """
    folders = {images.name: RunDir(job.run.folder(f"features/{images.name}")) for images in sets}
    left = []
    for images in sets:
        # parts too: a digest knows no order, and rows of features must be those of the images
        identity = fingerprint([images.digest, images.parts, extractor])
        if not folders[images.name].is_complete("features", identity):
            left.append((images, folders[images.name], identity))
    if left:
        _compute(job, left)
    return {name: _read(run, job.domain.qualities) for name, run in folders.items()}


def _read(run: RunDir, qualities: Sequence[str]) -> SetFeatures:
    tables = [(run.root / file).read_table() for file, _ in run.finished_parts("features")]
    z = np.concatenate([matrix(t["features"]) for t in tables])
    return SetFeatures(z, {name: np.concatenate([t[name].to_numpy() for t in tables]) for name in qualities})


def _compute(job: Job, left: Sequence[tuple[ImageSet, RunDir, str]]) -> None:
    """A unit is a part of one of the sets; each leaves its marker in that set's folder."""
    settings = job.config.evaluate
    places = _Places([(run.root, n) for images, run, _ in left for n in range(len(images.parts))])
    parts = [(k, file, rows) for k, (images, _, _) in enumerate(left) for file, rows in images.parts]
    done: dict[int, UnitResult] = {}
    first = 0
    for images, run, identity in left:
        done |= {first + n: result for n, result in run.begin("features", identity).items()}
        first += len(images.parts)
    pool = job.pool(settings.workers, "evaluate", limit=len(parts))
    started = time.monotonic()
    run_units(
        job,
        "features",
        {n: pa.table({"file": [file], "set": [k]}) for n, (k, file, _) in enumerate(parts)},
        {n: rows for n, (_, _, rows) in enumerate(parts)},
        done,
        pool,
        FeatureWorker,
        (job.config, places, [left[k][0].decoder for k, _, _ in parts], pool.gpus > 0),
        read=_ReadPart([images.root for images, _, _ in left]),
        unit_name=f"images of {_named([images.name for images, _, _ in left])}",
        places=places,
    )
    seconds = time.monotonic() - started
    for _, run, identity in left:
        found = Outcome.of(run.finished_units("features").values())
        run.finish("features", identity, found.counts, found.digest, seconds, found.counts.rows_in, **found.facts)


def _named(sets: Sequence[str]) -> str:
    return ", ".join(sets) if len(sets) < 7 else f"{len(sets)} sets"


class _Places:
    """Unit -> the folder of its set, and its number there."""

    def __init__(self, places: Sequence[tuple[Location, int]]):
        self.places = places

    def __call__(self, unit: int) -> tuple[Location, int]:
        return self.places[unit]


class _ReadPart:
    """Read one stored part of one of the sets."""

    def __init__(self, roots: Sequence[Location]):
        self.roots = roots

    def __call__(self, unit: pa.Table) -> pa.Table:
        return (self.roots[unit["set"][0].as_py()] / unit["file"][0].as_py()).read_table()


class FeatureWorker:
    """Holds the extractor; one stored part a call."""

    def __init__(self, config: Config, places: _Places, decoders: Sequence[Location | None], gpu: bool):
        self.device = "cuda" if gpu else "cpu"
        self.extractor = opened(config, self.device)
        self.places, self.decoders, self.batch_size = places, decoders, config.decode.batch_size
        self.domain = domain_of(config)
        self.vaes: dict[str, Codec] = {}

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        decoder = self.decoders[unit]
        batch = self.domain.unpack(part) if decoder is None else self._decoded(part, decoder)
        table = pa.table({"key": part["key"], "features": vectors(self.extractor(batch)), **self.domain.quality(batch)})
        out, number = self.places(unit)
        file = f"parts/part-{number:06d}.parquet"
        (out / file).write_table(table)
        return UnitResult(unit, Counts(len(part), len(table)), table_digest(table), (file,), (len(table),))

    def _decoded(self, part: pa.Table, weights: Location) -> np.ndarray:
        from ldsaug_ray.models import decode_batch, load_vae

        if weights.uri not in self.vaes:
            self.vaes[weights.uri] = load_vae(weights, self.device)
        return decode_batch(self.vaes[weights.uri], matrix(part["z"]), self.batch_size)
