"""The latents of a run, by key: rows, labels, and which row a key has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ldsaug_ray.common.columns import matrix
from ldsaug_ray.config import Interpolation
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import RunDir

if TYPE_CHECKING:
    from ldsaug_ray.lds import Noise


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of one split, rows sorted by key: the one array of a run that is held whole."""

    keys: pa.Array  # string[N]
    z: NDArray[np.float32]  # [N, d]
    attribute_names: tuple[str, ...]
    attributes: NDArray[np.int32]  # [N, A]: 1, -1, or 0 where not known; of `categorical` ones the label + 1, or 0
    categorical: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
        """Row of each key.

        Raises:
            InputError: a key has no latent.
        """
        found = pc.index_in(keys, value_set=self.keys)
        if found.null_count:
            missing = keys.filter(pc.is_null(found))[0].as_py()
            raise InputError(f"the image {missing!r} is named, but has no latent; encode, score and decode again")
        return np.asarray(found.to_numpy(), np.int64)

    def between(self, made: pa.Table, interpolation: Interpolation, noise: Noise | None) -> NDArray[np.float32]:
        """Candidates of a table with columns candidate, parent_i, parent_j and alpha, float32[M, d]; noise: theirs.

        Raises:
            InputError: a parent has no latent.
        """
        from ldsaug_ray.lds import interpolate

        i, j = (self.rows(made[side]) for side in ("parent_i", "parent_j"))
        return interpolate(self.z, i, j, made["alpha"].to_numpy(), interpolation, noise, made["candidate"].to_numpy())


def is_categorical(values: pa.ChunkedArray | pa.Array) -> bool:
    """Whether an attribute's column has labels of many values; the others are int8."""
    return not pa.types.is_int8(values.type)


def label_codes(values: pa.ChunkedArray | pa.Array) -> NDArray[np.int32]:
    """An attribute's column as in `Latents.attributes`, int32[N]."""
    known = pc.fill_null(pc.add(values.cast(pa.int32()), int(is_categorical(values))), 0)
    return np.asarray(known.to_numpy(), np.int32)


def in_memory(shape: tuple[int, int]) -> NDArray[np.float32]:
    """An array to fill."""
    return np.empty(shape, np.float32)


def latents_on_disk(run: RunDir, split: Literal["train", "test"]) -> Latents:
    """As `read_latents`, with z in a file that goes with the array, and in no process's memory."""
    with TemporaryDirectory(prefix="ldsaug-") as folder:  # deleted, a file stays while it is mapped
        return read_latents(
            run, split, lambda shape: np.memmap(Path(folder) / "latents", np.float32, "w+", shape=shape)
        )


def read_latents(
    run: RunDir, split: str, allocate: Callable[[tuple[int, int]], NDArray[np.float32]] = in_memory
) -> Latents:
    """Latents of a split, `z` written to what `allocate` gives for its shape; one stored part is in memory besides.

    Raises:
        MissingStageError: stage `encode` is not complete.
        InputError: a key comes twice, or latents differ in dimension.
    """
    run.require("encode")
    files = run.folder("latents").files(".parquet")
    where: list[NDArray[np.int64]] = []
    parts: list[pa.Array] = []
    for file in files:  # first the keys, for their order; then the latents
        table = file.read_table(["key", "split"])
        where.append(np.flatnonzero(pc.equal(table["split"], split).to_numpy()))
        parts.append(table["key"].take(where[-1]).combine_chunks())
    keys = pa.concat_arrays([c for p in parts for c in (p.chunks if isinstance(p, pa.ChunkedArray) else [p])])
    order = pc.sort_indices(keys)
    keys = keys.take(order)
    if len(keys) and pc.any(pc.equal(keys[:-1], keys[1:])).as_py():
        raise InputError(f"{run.folder('latents').uri}: a key comes twice; encode again")
    labels = np.empty((len(keys), 0), np.int32)
    categorical: frozenset[str] = frozenset()
    rank, done = np.empty(len(keys), np.int64), 0
    rank[order.to_numpy()] = np.arange(len(keys))
    if not len(keys):
        return Latents(keys, np.empty((0, run.require("encode", "latent_dim")), np.float32), (), labels)
    z: NDArray[np.float32] | None = None
    names: tuple[str, ...] = ()
    for file, inside in zip(files, where, strict=True):
        if not len(inside):
            continue
        table = file.read_table()
        found = matrix(table["z"].take(inside))
        z = allocate((len(keys), found.shape[1])) if z is None else z
        if found.shape[1] != z.shape[1]:
            raise InputError(f"{run.folder('latents').uri}: parts with latents of different dimensions; encode again")
        rows = rank[done : done + len(inside)]
        z[rows] = found
        if "attributes" in table.column_names:
            column = table["attributes"].take(inside)
            names = tuple(column.type.field(k).name for k in range(column.type.num_fields))
            labels = labels if labels.shape[1] else np.zeros((len(keys), len(names)), np.int32)
            for k, name in enumerate(names):
                values = pc.struct_field(column, name)
                categorical |= {name} if is_categorical(values) else set()
                labels[rows, k] = label_codes(values)
        done += len(inside)
    assert z is not None
    return Latents(keys, z, names, labels, categorical)
