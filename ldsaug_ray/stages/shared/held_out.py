"""Log LDS of held-out real latents: what `select` compares candidates with, and the report shows beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import table_digest
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.stages.shared.job import Job

if TYPE_CHECKING:
    from ldsaug_ray.lds import HeldOut

LIMIT = 10_000  # enough for any quantile of interest; of more, those whose hashed keys come first


def score_held_out(
    job: Job, train: np.ndarray, sigmas: Sequence[float], runs: Sequence[RunDir]
) -> list[tuple[HeldOut | None, int]]:
    """Score the latents of split `test` against the training latents: `held_out/` (key, log_lds) of each run directory,
    one for each bandwidth.

    Returns what the manifest keeps of them and the table's digest; none, and no file, without test images.

    Raises:
        InputError: a latent is not finite (the message names its key).
    """
    from ldsaug_ray.lds import HeldOut, score_points, validate_latents

    found = read_latents(job.run, "test")
    keys = found.keys.to_pylist()
    if not keys:
        return [(None, 0)] * len(sigmas)
    rows = sorted(sorted(range(len(keys)), key=lambda k: _rank(keys[k], job.config.seed))[:LIMIT])
    names, points = [keys[k] for k in rows], found.z[rows]
    validate_latents(points, keys=names, name="the held-out latents")
    settings = job.config.score
    scores = score_points(train, points, sigmas, tile_rows=settings.tile_rows, tile_latents=settings.tile_latents)
    scored: list[tuple[HeldOut | None, int]] = []
    for log_lds, run in zip(scores.T, runs, strict=True):
        table = pa.table({"key": pa.array(names, pa.string()), "log_lds": np.ascontiguousarray(log_lds)})
        (run.folder("held_out") / "part-000000.parquet").write_table(table)
        scored.append((HeldOut.of(log_lds), table_digest(table)))
    return scored


def held_out_scores(run: RunDir) -> np.ndarray:
    """Log LDS of the held-out latents, float64[n]; none where the run has no test images."""
    scores = [file.read_table(["log_lds"])["log_lds"].to_numpy() for file in run.folder("held_out").files(".parquet")]
    return np.concatenate([*scores, np.empty(0)])


def _rank(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
