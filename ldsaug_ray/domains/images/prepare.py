"""From a source to training arrays: the plan (who is in which split, cut into units) and the work on one unit.

Both are plain functions of their arguments: the same units come out on one machine and on a hundred, and a unit can be
done anywhere, twice, or later. Every listed image ends in exactly one place: train, test, unused or quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import Data
from ldsaug_ray.domains.images.attributes import AttributeTable
from ldsaug_ray.domains.images.base import Attributes, Source
from ldsaug_ray.domains.images.decode import UnusableImage, decode_image
from ldsaug_ray.domains.images.split import assign_splits
from ldsaug_ray.domains.images.tables import QUARANTINE, UNIT, image_table
from ldsaug_ray.errors import InputError


@dataclass(frozen=True)
class PreparePlan:
    """What is to be done, and where the images went that need no work: n_listed = units + unused + quarantine."""

    units: tuple[pa.Table, ...]  # schema UNIT; consecutive rows of the listing
    quarantine: pa.Table  # schema QUARANTINE: duplicate keys, and images without attributes
    n_listed: int
    n_dropped_unused: int  # in neither split
    n_train: int  # in the units; decoding may quarantine some
    n_test: int
    attribute_names: tuple[str, ...] | None  # of the prepared tables; None: they have no attributes
    notes: tuple[str, ...] = ()  # sentences that the user should read before trusting the result


@dataclass(frozen=True)
class PreparedUnit:
    """One unit's images; the three tables have as many rows as the unit."""

    train: pa.Table  # tables.image_schema
    test: pa.Table
    quarantine: pa.Table  # tables.QUARANTINE


def plan(source: Source, data: Data, seed: int, attributes: AttributeTable | None = None) -> PreparePlan:
    """List the source, split it, and cut it into units of `data.part_rows`.

    The split is drawn over all distinct keys, before attributes are looked at, so that it stays the same with other
    attributes. An image that no split uses is dropped, whatever else is wrong with it.

    Raises:
        InputError: the source is unreadable; the split asks for too much; attributes are missing with
            data.missing_attributes = error, or for all images; fewer than two images are left to train on.
    """
    names = attribute_names(source, data, attributes)
    table = source.list()
    keys, files = table["key"].to_pylist(), table["file"].to_pylist()
    if len(keys) < 2:
        raise InputError(f"data.source = {source.uri}: {len(keys)} image found; pairs need two at least")
    first: dict[str, int] = {}
    quarantine: list[tuple[str, str, str]] = []
    across = 0
    for i, key in enumerate(keys):
        original = first.setdefault(key, i)
        if original != i:
            where = files[original] or source.uri
            quarantine.append((key, f"duplicate key (first seen in {where})", files[i]))
            across += files[original] != files[i]
    unique = np.fromiter(first.values(), np.int64, len(first))  # ascending: dicts keep the order
    splits = assign_splits(list(first), seed=seed, train=data.train, test=data.test)
    notes = list(source.notes)
    if across and not data.shard_in_key:
        notes.append(
            f"{across} images have the key of an image in another file ({quarantine[0][0]}, …) and are quarantined; "
            "where every file counts from zero, data.shard_in_key=true puts the file's name before the key"
        )
    used = splits != "unused"
    rows, chosen = unique[used], splits[used]
    if attributes is not None:
        notes += _of_matching([keys[i] for i in rows], attributes)
    if attributes is not None and data.missing_attributes != "keep":
        there = np.array([attributes.row(keys[i]) is not None for i in rows], bool)
        missing = [keys[i] for i in rows[~there]]
        _check_missing(missing, len(rows), source, data, attributes)
        quarantine += [(keys[i], _no_attributes(attributes), files[i]) for i in rows[~there]]
        rows, chosen = rows[there], chosen[there]
    n_train = int((chosen == "train").sum())
    if n_train < 2:
        raise InputError(
            f"data.source = {source.uri}: {n_train} of {len(keys)} listed images left to train on, {len(quarantine)} "
            "quarantined; pairs need two at least"
        )
    work = table.take(pa.array(rows))
    work = pa.table([work["key"], pa.array(chosen), *(work[n] for n in ("file", "index", "length"))], schema=UNIT)
    return PreparePlan(
        # Chunks are combined so that a unit pickles as its own rows and not as the whole listing.
        units=tuple(_own(work.slice(start, data.part_rows)) for start in range(0, len(work), data.part_rows)),
        quarantine=_quarantine(quarantine),
        n_listed=len(keys),
        n_dropped_unused=int((~used).sum()),
        n_train=n_train,
        n_test=len(chosen) - n_train,
        attribute_names=names,
        notes=tuple(notes),
    )


def prepare_unit(source: Source, unit: pa.Table, data: Data, attributes: AttributeTable | None = None) -> PreparedUnit:
    """Read and decode one unit: uint8[data.resolution, data.resolution, 3] a image, in the unit's order.

    Raises:
        InputError: an image's own columns lack attributes, with data.missing_attributes = error.
    """
    names = attribute_names(source, data, attributes)
    pixels = np.empty((len(unit), data.resolution, data.resolution, 3), np.uint8)
    kept: list[int] = []
    values: list[Attributes | None] = []
    quarantine: list[tuple[str, str, str]] = []
    keys, splits, files = (unit[name].to_pylist() for name in ("key", "split", "file"))
    for i, (image, reason, found) in enumerate(_decoded(source, unit, data)):
        known = attributes.lookup(keys[i]) if attributes is not None else found
        if image is not None and names is not None and known is None and data.missing_attributes != "keep":
            reason = _no_attributes(attributes or source)
            if data.missing_attributes == "error":
                raise InputError(f"{keys[i]!r}: {reason}; data.missing_attributes = quarantine or keep goes on")
        if image is None or reason is not None:
            quarantine.append((keys[i], reason or "cannot be read", files[i]))
            continue
        pixels[len(kept)] = image
        kept.append(i)
        values.append(known)
    tables = {}
    for split in ("train", "test"):
        mine = [n for n, i in enumerate(kept) if splits[i] == split]
        tables[split] = image_table(
            [keys[kept[n]] for n in mine],
            [split] * len(mine),
            pixels[mine],
            None if names is None else [values[n] for n in mine],
            names or (),
            source.categorical,
        )
    return PreparedUnit(tables["train"], tables["test"], _quarantine(quarantine))


def attribute_names(source: Source, data: Data, attributes: AttributeTable | None) -> tuple[str, ...] | None:
    """The attributes that prepared tables have; None where data.attributes asks for none."""
    if data.attributes is None:
        return None
    if data.attributes == "columns":
        return source.attribute_names
    if attributes is None:
        raise ValueError("data.attributes is a file: give its table (load_attributes)")
    return attributes.names


def _decoded(
    source: Source, unit: pa.Table, data: Data
) -> Iterator[tuple[np.ndarray | None, str | None, Attributes | None]]:
    for payload, reason, found in source.read(unit):
        image = None
        if payload is not None:
            try:
                image = decode_image(
                    payload,
                    resolution=data.resolution,
                    crop=data.crop,
                    upscale=data.upscale,
                    max_pixels=data.max_pixels,
                )
            except UnusableImage as e:
                reason = str(e)
        yield image, reason, found


def _of_matching(keys: list[str], attributes: AttributeTable) -> list[str]:
    """What to say of rows that were found by other than their images' own names."""
    accents = [k for k in keys if not k.isascii() and attributes.exact_row(k) is None and attributes.row(k) is not None]
    rows = Counter(row for k in keys if (row := attributes.row(k)) is not None)
    several = [row for row, n in rows.items() if n > 1]
    notes = []
    if accents:
        notes.append(
            f"{len(accents)} images match {attributes.file} only when accents are composed (Unicode NFC), as "
            f"{accents[0]!a}: names written on macOS and elsewhere look alike and differ"
        )
    if several:
        notes.append(
            f"{len(several)} rows of {attributes.file} each serve several images, as {attributes.keys[several[0]]}: "
            "its names have no folders; are these images of the same thing?"
        )
    return notes


def _check_missing(missing: list[str], n: int, source: Source, data: Data, table: AttributeTable) -> None:
    if not missing:
        return
    examples = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    if len(missing) == n:
        raise InputError(
            f"data.attributes = {table.file} has no row for any image of {source.uri}: its keys are like "
            f"{', '.join(table.keys[:3]) or 'none'}, the images' like {examples}"
        )
    if data.missing_attributes == "error":
        raise InputError(
            f"{table.file} has no attributes for {len(missing)} of {n} images ({examples}); "
            "data.missing_attributes = quarantine or keep goes on without them"
        )


def _no_attributes(place: AttributeTable | Source) -> str:
    return f"no attributes in {place.file if isinstance(place, AttributeTable) else place.uri}"


def _own(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.arange(len(table))))


def _quarantine(rows: list[tuple[str, str, str]]) -> pa.Table:
    keys, reasons, files = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table([pa.array(c, pa.string()) for c in (keys, reasons, files)], schema=QUARANTINE)
