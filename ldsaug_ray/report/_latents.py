"""Training latents and prepared images of a run, found by key. One stored part of images is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ldsaug_ray.common.columns import matrix
from ldsaug_ray.domains.images import image_array
from ldsaug_ray.errors import InputError
from ldsaug_ray.report.sheets import tiles
from ldsaug_ray.run.directory import RunDir


@dataclass(frozen=True, eq=False)
class Latents:
    """The training latents, rows sorted by key: the one array that is held whole, as in `score`."""

    keys: pa.Array  # string[N]
    z: NDArray[np.float32]  # [N, d]
    attribute_names: tuple[str, ...]
    attributes: NDArray[np.int8]  # [N, A]: 1, -1, or 0 where not known

    def rows(self, keys: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
        """Row of each key. Raises InputError for a key that has no latent."""
        found = pc.index_in(keys, value_set=self.keys)
        if found.null_count:
            missing = keys.filter(pc.is_null(found))[0].as_py()
            raise InputError(f"scores name the image {missing!r}, which has no latent; score again")
        return np.asarray(found.to_numpy(), np.int64)


def read_latents(run: RunDir) -> Latents:
    """The latents of the train split.

    Raises:
        InputError: there are none.
    """
    keys: list[pa.Array] = []
    vectors: list[NDArray[np.float32]] = []
    attributes: list[NDArray[np.int8]] = []
    names: tuple[str, ...] = ()
    for file in run.folder("latents").files(".parquet"):
        table = file.read_table()
        table = table.filter(pc.equal(table["split"], "train")).combine_chunks()
        if not len(table):
            continue
        vectors.append(matrix(table["z"]).astype(np.float32, copy=False))
        keys.append(pa.concat_arrays(table["key"].chunks))
        if "attributes" in table.column_names:
            column = table["attributes"]
            names = tuple(column.type.field(k).name for k in range(column.type.num_fields))
            known = [pc.fill_null(pc.struct_field(column, name), 0).to_numpy() for name in names]
            attributes.append(np.stack(known, axis=1).astype(np.int8) if known else np.empty((len(table), 0), np.int8))
    if not keys:
        raise InputError(f"{run.folder('latents').uri}: there are no training latents; encode again")
    all_keys = pa.concat_arrays(keys)
    order = pc.sort_indices(all_keys)
    places = order.to_numpy()
    return Latents(
        keys=all_keys.take(order),
        z=np.concatenate(vectors)[places],
        attribute_names=names,
        attributes=np.concatenate(attributes)[places] if names else np.empty((len(places), 0), np.int8),
    )


def find_tiles(run: RunDir, keys: Iterable[str]) -> dict[str, NDArray[np.uint8]]:
    """Tiles uint8[T, T, 3] of training images by key; parts that hold none of the keys give up only their key column.

    Raises:
        InputError: an image is not there.
    """
    wanted = set(keys)
    found: dict[str, NDArray[np.uint8]] = {}
    for file in run.folder("images").files(".parquet"):
        if not file.name.startswith("train-"):
            continue
        here = file.read_table(["key"])["key"].to_pylist()
        rows = [n for n, key in enumerate(here) if key in wanted]
        if rows:
            made = tiles(image_array(file.read_table(["image"]))[rows])
            found.update(zip((here[n] for n in rows), made, strict=True))
        if len(found) == len(wanted):
            return found
    if missing := sorted(wanted - found.keys()):
        raise InputError(f"{run.folder('images').uri}: the image {missing[0]!r} is not there; prepare again")
    return found


def first_images(run: RunDir, n: int) -> tuple[str, NDArray[np.uint8]]:
    """Up to n images uint8[m, R, R, 3] spread over the first stored parts of the test split, else of the train split.

    Raises:
        InputError: there are no images.
    """
    for split in ("test", "train"):
        kept: list[NDArray[np.uint8]] = []
        missing = n
        for file in run.folder("images").files(".parquet"):
            if file.name.startswith(f"{split}-") and missing:
                images = image_array(file.read_table(["image"]))
                kept.append(images[evenly(len(images), missing)])
                missing -= len(kept[-1])
        if kept:
            return split, np.concatenate(kept)
    raise InputError(f"{run.folder('images').uri}: there are no images; prepare again")


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Up to `most` different places of 0..n-1, first and last included, evenly spread."""
    return np.unique(np.rint(np.linspace(0, n - 1, min(n, most))).astype(np.int64)) if n else np.empty(0, np.int64)


def take_text(array: pa.Array, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
    """Strings at these rows."""
    return array.take(pa.array(rows, pa.int64())).to_pylist()
