"""`augment` of a Ray Dataset: what happens once somebody consumes the Dataset that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.api.arguments import MOST_LABELS, array_of, lacks, stacked
from ldsaug_ray.api.staged import KEPT, Part, selected
from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import Noise
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import sole_driver

if TYPE_CHECKING:
    from ray.data import Dataset

PART = 65_536  # rows of a stored part, and of a block of the Dataset that comes out, at most


def selected_of(
    dataset: Dataset, labels: str | None, real: NDArray[np.float32] | None, config: Config, root: Location | None
) -> Iterator[pa.Table]:
    """The selected latents of a Dataset, in tables; runs in a task of Ray's."""
    engine = engine_of(config)
    with ExitStack() as held:
        if root is None:
            if len(engine.nodes()) > 1:
                raise InputError("work_dir is needed where there are several nodes: a folder that all of them reach")
            root = Location.of(held.enter_context(TemporaryDirectory(prefix="ldsaug-")))
        elif (root / "config.yaml").exists() or (root.names() and not (root / "manifest.json").exists()):
            raise InputError(f"work_dir {root.uri}: holds something else; choose an empty or a new folder")
        held.enter_context(sole_driver("work_dir", root))
        with engine:
            run = selected(root, config, engine, _parts(dataset, labels), real)
        latents, noise = read_latents(run, "train"), Noise.kept(run.require("score"), config.seed)
        for file in run.folder("selected").files(".parquet"):
            table = file.read_table(KEPT.names)
            for start in range(0, len(table), PART):
                some = table.slice(start, PART)
                z = latents.between(some, config.score.interpolation, noise)
                keys = pa.array([f"c{c:012d}" for c in some["candidate"].to_pylist()])
                yield pa.table({"key": keys, "z": vectors(z), **{name: some[name] for name in KEPT.names}})


def _parts(dataset: Dataset, labels: str | None) -> Iterator[Part]:
    """Keys, latents and labels of a Dataset, as they stream in.

    Raises:
        InputError: a column is missing, a key is null or comes twice, or a latent cannot be used.
    """
    seen: set[str] = set()
    values: dict[Any, int] = {}
    for batch in dataset.iter_batches(batch_size=PART, batch_format="numpy"):
        columns: dict[str, Any] = dict(batch)
        keys = [None if key is None else str(key) for key in stacked(columns, "key").tolist()]
        for key in keys:
            if key is None or key in seen:
                raise InputError(f"z: the column key has {'a null' if key is None else f'{key!r} twice'}")
            seen.add(key)
        of: NDArray[np.int8] | None = None
        if labels is not None:
            column = stacked(columns, labels)
            if (lacking := lacks(column)).any():
                raise InputError(f"labels: the column {labels} has none for the key {keys[int(np.argmax(lacking))]!r}")
            found = [values.setdefault(x, len(values) + 1) for x in column.tolist()]
            if len(values) > MOST_LABELS:
                raise InputError(f"labels: the column {labels} has more than {MOST_LABELS} different values")
            of = np.array(found, np.int8)
        yield pa.array(keys, pa.string()), array_of(stacked(columns, "z"), "z"), of
