"""The FAISS index over the training latents: built shard by shard where there is room, kept in the run directory.

`index/` holds it beside the fingerprint of its latents; the next run with the same latents and structure reads it.
FAISS trusts such a file, so only a run directory that this program wrote should be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ldsaug_ray.config import Config
from ldsaug_ray.lds import Approximation, latents_fingerprint, load_index, save_index
from ldsaug_ray.lds.index import FILE, RECORD, LatentIndex
from ldsaug_ray.stages.shared.job import Job


def approximation(config: Config) -> Approximation:
    """The engine's settings."""
    return Approximation(**config.score.approximate.model_dump(), seed=config.seed % 2**31)


def open_index(job: Job, train: np.ndarray, shards: Sequence[Any]) -> tuple[LatentIndex, str]:
    """The run directory's index where it matches, else a new one, saved there; and what was done, in words.

    shards: the training latents, in order, as the engine shares them.
    """
    folder, settings, mark = job.run.folder("index"), approximation(job.config), latents_fingerprint(train)
    with TemporaryDirectory(prefix="ldsaug-") as temporary:
        local = Path(temporary)
        for name in (FILE, RECORD):
            if (folder / name).exists():
                (local / name).write_bytes((folder / name).read_bytes())
        index, why = load_index(local, train, settings, mark)
        if index is None:
            index, why = _build(job, train, shards, settings), f"built a new index: {why}"
            save_index(local, index, mark)
            for name in (FILE, RECORD):  # the record last: an index without it is not used
                (folder / name).write_bytes((local / name).read_bytes())
    return index, why


def _build(job: Job, train: np.ndarray, shards: Sequence[Any], settings: Approximation) -> LatentIndex:
    """Train on the driver, add each shard to a copy wherever there is a CPU, merge the copies in order."""
    index = LatentIndex.trained(train, settings)
    shared = job.engine.share((index.data(), index.structure, index.frame))
    for data in job.engine.each(_added, shared, shards):
        index.merge(LatentIndex.of(data, index.structure, index.frame))
    return index


def _added(trained: tuple[Any, ...], shard: np.ndarray) -> np.ndarray:
    index = LatentIndex.of(*trained)
    index.add(shard)
    return index.data()
