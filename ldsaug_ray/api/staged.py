"""Latents that are given, put where stage `encode` would have left them, so that the next stages go on from there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.digest import add_digests, digest_text, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines.base import Engine
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import Counts, RunDir
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.stages import score, select
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import ensure

Part = tuple[pa.Array, NDArray[np.float32], NDArray[np.int8] | None]  # keys, latents, labels

KEPT = pa.schema(  # of `selected/`, what is read again
    {"candidate": pa.int64(), "parent_i": pa.string(), "parent_j": pa.string()}
    | {"alpha": pa.float64(), "log_lds": pa.float64()}
)


def selected(
    root: Location, config: Config, engine: Engine, parts: Iterable[Part], real: NDArray[np.float32] | None
) -> RunDir:
    """A run directory with `latents/`, as stage `encode` would leave them, in which `score` and `select` are done."""
    run = RunDir(root)
    run.create()
    run.folder("latents").delete()
    digests, rows, dim = [], 0, 0
    for number, (split, part) in enumerate(_with_held_out(parts, real)):
        keys, z, labels = part
        if dim not in (0, z.shape[1]):
            other = "others" if split == "train" else "held_out"
            raise InputError(f"z has vectors of {dim} numbers, {other} of {z.shape[1]}; all must be as long")
        rows, dim = rows + len(z), z.shape[1]
        columns = {"key": keys, "split": pa.array([split] * len(z), pa.string()), "z": vectors(z)}
        if labels is not None:
            columns["attributes"] = pa.StructArray.from_arrays([pa.array(labels)], ["label"])
        table = pa.table(columns)
        (run.folder("latents") / f"part-{number:06d}.parquet").write_table(table)
        digests.append(table_digest(table))
    digest = digest_text(add_digests(digests))
    run.finish("encode", digest, Counts(rows, rows), digest, 0.0, rows, latent_dim=dim)
    job = Job(config, run, Console(quiet=True), engine)
    scored = STAGES["score"].fingerprint(config, {"encode": digest})
    ensure(job, "score", scored, score.run)
    both = {"encode": digest, "score": run.require("score", "digest")}
    ensure(job, "select", STAGES["select"].fingerprint(config, both), select.run)
    return run


def _with_held_out(parts: Iterable[Part], real: NDArray[np.float32] | None) -> Iterator[tuple[str, Part]]:
    for part in parts:
        yield "train", part
    if real is not None:
        keys = pa.array([f"held-out-{k:09d}" for k in range(len(real))])
        yield "test", (keys, real, None)
