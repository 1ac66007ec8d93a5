"""Content digests that do not depend on file names, row order, or the number of workers.

Each row is hashed; a table's digest is the sum of its rows' hashes modulo 2^256 (a multiset hash), so digests of parts
add up to the digest of the whole, in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import import_module
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_MODULUS = 1 << 256
_ROWS_AT_ONCE = 8192  # bounds memory, and small enough for the processor's cache


def table_digest(table: pa.Table) -> int:
    """Sum over rows of BLAKE2b-256(row), modulo 2^256.

    Column names, types and values all count, the order of rows and columns and the cutting into chunks do not. Types
    count as Arrow writes them: a dictionary of strings differs from strings. Floats count by their bits: -0.0 differs
    from 0.0, and a NaN equals itself. An empty table is 0, whatever its columns.

    Raises:
        ValueError: a null inside a fixed-size list.
    """
    names = sorted(table.column_names)
    head = json.dumps([[n, str(table.schema.field(n).type)] for n in names]).encode()
    total = 0
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        if batch.num_rows:
            total += _batch_digest(head, [batch.column(n) for n in names], batch.num_rows)
    return total % _MODULUS


def add_digests(digests: list[int]) -> int:
    """Digest of the union of disjoint parts."""
    return sum(digests) % _MODULUS


def digest_text(digest: int) -> str:
    """64 hexadecimal digits."""
    return f"{digest:064x}"


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def code_digest(paths: Iterable[str]) -> str:
    """Of the modules that paths like `package.module:Name` lie in, "" where there are none: other code may give another
    result. Paths without a colon are ours. The modules can be imported; one without a file counts by its name.
    """
    modules = sorted({path.partition(":")[0] for path in paths if ":" in path})
    files = [getattr(import_module(name), "__file__", None) for name in modules]
    codes = [hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else "" for file in files]
    return fingerprint([modules, codes]) if modules else ""


def _batch_digest(head: bytes, columns: list[pa.Array], rows: int) -> int:
    """A row is hashed as: which values are there, the fixed-width values, the lengths of the others, the others."""
    start = hashlib.blake2b(head, digest_size=32)
    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in columns]
    present = [np.asarray(c.is_valid().to_numpy(zero_copy_only=False), np.uint8).reshape(rows, 1) for c in columns]
    parts = list(present)
    texts: list[list[memoryview] | list[bytes]] = []
    for column, valid in zip(columns, present, strict=True):
        if _is_fixed(column.type):
            raw = _fixed_bytes(column)
            parts.append(raw if column.null_count == 0 else raw * valid)  # what lies under a null is arbitrary
        else:
            texts.append(_value_bytes(column))
            lengths = np.fromiter(map(len, texts[-1]), "<i8", rows)
            parts.append(lengths.view(np.uint8).reshape(rows, 8))
    fixed = np.hstack(parts) if parts else np.empty((rows, 0), np.uint8)
    width, view = fixed.shape[1], fixed.reshape(-1).data
    digests = []
    for k, others in enumerate(zip(*texts, strict=True) if texts else repeat((), rows)):
        h = start.copy()
        h.update(view[k * width : (k + 1) * width])
        for value in others:
            h.update(value)
        digests.append(h.digest())
    words = np.frombuffer(b"".join(digests), "<u4").reshape(rows, 8).sum(axis=0, dtype=np.uint64)
    return sum(int(word) << 32 * n for n, word in enumerate(words))


def _is_fixed(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return _is_fixed(kind.value_type)
    return pa.types.is_fixed_size_binary(kind) or (pa.types.is_primitive(kind) and not pa.types.is_boolean(kind))


def _fixed_bytes(column: pa.Array) -> np.ndarray:
    """uint8[rows, width], read from Arrow's memory."""
    kind, rows = column.type, len(column)
    if pa.types.is_fixed_size_list(kind):
        inner = column.values.slice(column.offset * kind.list_size, rows * kind.list_size)  # .values ignores the offset
        if inner.null_count and column.flatten().null_count:
            raise ValueError(f"a null inside a list of {kind}: its digest is not defined")
        raw = _fixed_bytes(inner)
        return raw.reshape(rows, kind.list_size * raw.shape[1])
    width = kind.byte_width
    if rows * width == 0:
        return np.empty((rows, width), np.uint8)
    return np.frombuffer(column.buffers()[1], np.uint8, rows * width, column.offset * width).reshape(rows, width)


def _value_bytes(column: pa.Array) -> list[memoryview] | list[bytes]:
    kind = column.type
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if not (large or pa.types.is_string(kind) or pa.types.is_binary(kind)):
        return [repr(v).encode() for v in column.to_pylist()]
    if column.null_count:
        column = column.fill_null(b"" if "binary" in str(kind) else "")
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, "<i8" if large else "<i4")[column.offset : column.offset + len(column) + 1].tolist()
    view = memoryview(data or b"")
    return [view[a:b] for a, b in pairwise(ends)]
