"""Candidates with the group of their nearer parent, for `select.balance`: the driver reads them part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.selection.balance import LABEL, Grouped, grouping, nearer

PARENTS = ("parent_i", "parent_j", "alpha")


def grouped(config: Config, encoded: RunDir, read: Callable[[Sequence[str]], Iterable[pa.Table]]) -> Grouped:
    """Scores with a column `group`, by `select.balance`.

    Args:
        config: the settings.
        encoded: has `latents/`.
        read: gives tables of `scores/` with these columns beside those of the rule.

    Raises:
        InputError: a label that is not known, or not of every training image.
        ImpossibleError: fewer latents than clusters.
    """
    settings = config.select
    with TemporaryDirectory(prefix="ldsaug-") as folder:  # in no process's memory

        def allocate(shape: tuple[int, int]) -> np.ndarray:
            return np.memmap(Path(folder) / "latents", np.float32, "w+", shape=shape)

        latents = read_latents(encoded, "train", allocate)
        of_many = settings.balance.removeprefix(LABEL) in latents.categorical
        labels = dict(zip(latents.attribute_names, latents.attributes.T - int(of_many), strict=True))
        keys = latents.keys.to_pylist()
        groups = grouping(
            settings.balance,
            latents.z,
            keys,
            labels,
            clusters=settings.clusters,
            seed=config.seed,
            missing=-int(of_many),
        )

    def tables() -> Iterator[pa.Table]:
        for table in read(PARENTS):
            second = nearer(table["candidate"].to_numpy(), table["alpha"].to_numpy(), config.seed)
            rows = latents.rows(pc.if_else(pa.array(second), table["parent_j"], table["parent_i"]))
            yield table.append_column("group", pa.array(groups.of[rows]))

    return Grouped(groups.names, tables)
