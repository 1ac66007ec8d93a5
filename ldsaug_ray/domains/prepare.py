"""From a source to stored items: the plan (who is in which split, cut into units) and the work on one unit.

Both are plain functions of their arguments: the same units come out on one machine and on a hundred, and a unit can be
done anywhere, twice, or later. Every listed item ends in exactly one place: train, test, unused or quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.base import Array, Domain, Unusable
from ldsaug_ray.domains.sources.attributes import AttributeTable
from ldsaug_ray.domains.sources.base import Attributes, Source
from ldsaug_ray.domains.split import assign_splits
from ldsaug_ray.domains.tables import QUARANTINE, UNIT, item_table
from ldsaug_ray.errors import InputError


@dataclass(frozen=True)
class PreparePlan:
    """What is to be done, and where the items went that need no work: n_listed = units + unused + quarantine."""

    units: tuple[pa.Table, ...]  # schema UNIT; consecutive rows of the listing
    quarantine: pa.Table  # schema QUARANTINE: duplicate keys, and items without attributes
    n_listed: int
    n_dropped_unused: int  # in neither split
    n_train: int  # in the units; decoding may quarantine some
    n_test: int
    attribute_names: tuple[str, ...] | None  # of the prepared tables; None: they have no attributes
    notes: tuple[str, ...] = ()  # sentences that the user should read before trusting the result


@dataclass(frozen=True)
class PreparedUnit:
    """One unit's items; the three tables have as many rows as the unit."""

    train: pa.Table  # as of `item_table`
    test: pa.Table
    quarantine: pa.Table  # tables.QUARANTINE


def plan(
    domain: Domain, source: Source, data: CommonData, seed: int, attributes: AttributeTable | None = None
) -> PreparePlan:
    """List the source, split it, and cut it into units of `data.part_rows`.

    The split is drawn over all distinct keys, before attributes are looked at, so that it stays the same with other
    attributes. An item that no split uses is dropped, whatever else is wrong with it.

    Raises:
        InputError: the source is unreadable; the split asks for too much; attributes are missing with
            data.missing_attributes = error, or for all images; fewer than two items are left to train on.
    """
    names = attribute_names(source, data, attributes)
    table = source.list()
    keys, files = table["key"].to_pylist(), table["file"].to_pylist()
    if len(keys) < 2:
        raise InputError(f"data.source = {source.uri}: {len(keys)} {domain.item} found; pairs need two at least")
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
    splits = assign_splits(
        list(first), seed=seed, train=data.train, test=data.test, unit=domain.unit, split_by=data.split_by
    )
    notes = list(source.notes)
    if data.split_by is not None:
        n_train, n_test = ((splits == split).sum() for split in ("train", "test"))
        notes.append(f"data.split_by: whole groups make {n_train} {domain.unit} for training and {n_test} for test")
    if across and not data.shard_in_key:
        notes.append(
            f"{across} {domain.unit} have the key of {domain.files.an} in another file ({quarantine[0][0]}, …) and are "
            "quarantined; where every file counts from zero, data.shard_in_key=true puts the file's name before the key"
        )
    used = splits != "unused"
    rows, chosen = unique[used], splits[used]
    if attributes is not None:
        notes += map(domain.words, _of_matching([keys[i] for i in rows], attributes))
    if attributes is not None and data.missing_attributes != "keep":
        there = np.array([attributes.row(keys[i]) is not None for i in rows], bool)
        missing = [keys[i] for i in rows[~there]]
        _check_missing(missing, len(rows), source, data, attributes, domain)
        quarantine += [(keys[i], _no_attributes(attributes), files[i]) for i in rows[~there]]
        rows, chosen = rows[there], chosen[there]
    n_train = int((chosen == "train").sum())
    if n_train < 2:
        raise InputError(
            f"data.source = {source.uri}: {n_train} of {len(keys)} listed {domain.unit} left to train on, "
            f"{len(quarantine)} quarantined; pairs need two at least"
        )
    work = table.take(pa.array(rows))
    work = pa.table([work["key"], pa.array(chosen), *(work[n] for n in ("file", "index", "length"))], schema=UNIT)
    source.train_on(work.filter(pa.array(chosen == "train")))
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


def prepare_unit(
    domain: Domain, source: Source, unit: pa.Table, data: CommonData, attributes: AttributeTable | None = None
) -> PreparedUnit:
    """Read one unit, in its order.

    Raises:
        InputError: an item's own columns lack attributes, with data.missing_attributes = error.
    """
    names = attribute_names(source, data, attributes)
    batch: Array | None = None
    kept: list[int] = []
    values: list[Attributes | None] = []
    quarantine: list[tuple[str, str, str]] = []
    keys, splits, files = (unit[name].to_pylist() for name in ("key", "split", "file"))
    for i, (item, reason, found) in enumerate(_read(domain, source, unit, data)):
        known = attributes.lookup(keys[i]) if attributes is not None else found
        if item is not None and names is not None and known is None and data.missing_attributes != "keep":
            reason = _no_attributes(attributes or source)
            if data.missing_attributes == "error":
                raise InputError(f"{keys[i]!r}: {reason}; data.missing_attributes = quarantine or keep goes on")
        if item is None or reason is not None:
            quarantine.append((keys[i], reason or "cannot be read", files[i]))
            continue
        if batch is None:
            batch = np.empty((len(unit), *item.shape), item.dtype)
        batch[len(kept)] = item
        kept.append(i)
        values.append(known)
    tables = {}
    whole = domain.empty(data) if batch is None else batch
    for split in ("train", "test"):
        mine = [n for n, i in enumerate(kept) if splits[i] == split]
        tables[split] = item_table(
            domain.column,
            domain.pack(whole[mine]),
            [keys[kept[n]] for n in mine],
            [split] * len(mine),
            None if names is None else [values[n] for n in mine],
            names or (),
            source.categorical,
        )
    return PreparedUnit(tables["train"], tables["test"], _quarantine(quarantine))


def attribute_names(source: Source, data: CommonData, attributes: AttributeTable | None) -> tuple[str, ...] | None:
    """The attributes that prepared tables have; None where data.attributes asks for none."""
    if data.attributes is None:
        return None
    if data.attributes == "columns":
        return source.attribute_names
    if attributes is None:
        raise ValueError("data.attributes is a file: give its table (load_attributes)")
    return attributes.names


def _read(
    domain: Domain, source: Source, unit: pa.Table, data: CommonData
) -> Iterator[tuple[Array | None, str | None, Attributes | None]]:
    for payload, reason, found in source.read(unit):
        item = None
        if payload is not None:
            try:
                item = domain.read(payload, data)
            except Unusable as e:
                reason = str(e)
        yield item, reason, found


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


def _check_missing(
    missing: list[str], n: int, source: Source, data: CommonData, table: AttributeTable, domain: Domain
) -> None:
    if not missing:
        return
    examples = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    if len(missing) == n:
        raise InputError(
            f"data.attributes = {table.file} has no row for any {domain.item} of {source.uri}: its keys are like "
            f"{', '.join(table.keys[:3]) or 'none'}, the {domain.unit}' like {examples}"
        )
    if data.missing_attributes == "error":
        raise InputError(
            f"{table.file} has no attributes for {len(missing)} of {n} {domain.unit} ({examples}); "
            "data.missing_attributes = quarantine or keep goes on without them"
        )


def _no_attributes(place: AttributeTable | Source) -> str:
    return f"no attributes in {place.file if isinstance(place, AttributeTable) else place.uri}"


def _own(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.arange(len(table))))


def _quarantine(rows: list[tuple[str, str, str]]) -> pa.Table:
    keys, reasons, files = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table([pa.array(c, pa.string()) for c in (keys, reasons, files)], schema=QUARANTINE)
