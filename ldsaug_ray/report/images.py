"""Prepared items of a run, for the page: by key, or some. One stored part is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.domains import Domain
from ldsaug_ray.domains.base import Array
from ldsaug_ray.errors import InputError
from ldsaug_ray.report.sheets import shown
from ldsaug_ray.run.directory import RunDir, facts_of


def find_tiles(run: RunDir, domain: Domain, keys: Iterable[str]) -> dict[str, NDArray[np.uint8] | str]:
    """Tiles uint8[T, T, 3] of training images, or what else the domain shows, by key; parts that hold
    none of the keys give up only their key column.

    Raises:
        InputError: an image is not there.
    """
    wanted = set(keys)
    found: dict[str, NDArray[np.uint8] | str] = {}
    facts = facts_of(run.root)
    for file in run.folder("images").files(".parquet"):
        if not file.name.startswith("train-"):
            continue
        here = file.read_table(["key"])["key"].to_pylist()
        rows = [n for n, key in enumerate(here) if key in wanted]
        if rows:
            made = shown(domain, domain.unpack(file.read_table([domain.column]))[rows], facts)
            found.update(zip((here[n] for n in rows), made, strict=True))
        if len(found) == len(wanted):
            return found
    if missing := sorted(wanted - found.keys()):
        raise InputError(f"{run.folder('images').uri}: the {domain.item} {missing[0]!r} is not there; prepare again")
    return found


def first_items(run: RunDir, domain: Domain, n: int, splits: Sequence[str] = ("test", "train")) -> tuple[str, Array]:
    """A batch of up to n items spread over the first stored parts of the test split, else of the train split.

    Raises:
        InputError: there are none.
    """
    for split in splits:
        kept: list[Array] = []
        missing = n
        for file in run.folder("images").files(".parquet"):
            if file.name.startswith(f"{split}-") and missing:
                items = domain.unpack(file.read_table([domain.column]))
                kept.append(items[evenly(len(items), missing)])
                missing -= len(kept[-1])
        if kept:
            return split, np.concatenate(kept)
    raise InputError(f"{run.folder('images').uri}: there are no {domain.unit}; prepare again")


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Up to `most` different places of 0..n-1, first and last included, evenly spread."""
    return np.unique(np.rint(np.linspace(0, n - 1, min(n, most))).astype(np.int64)) if n else np.empty(0, np.int64)


def take_text(array: pa.Array, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
    """Strings at these rows."""
    return array.take(pa.array(rows, pa.int64())).to_pylist()
