"""Content digests that do not depend on file names, row order, or the number of workers.

Each row is hashed; a table's digest is the sum of its rows' hashes modulo 2^256 (a multiset hash), so digests of parts
add up to the digest of the whole, in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MODULUS = 1 << 256
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 8192, 2**24  # bound memory, and small enough for the processor's cache


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
    rows = max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE * len(table) // max(1, table.nbytes)))
    for batch in table.to_batches(max_chunksize=rows):
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
    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in columns]
    present = [np.asarray(c.is_valid().to_numpy(zero_copy_only=False), np.uint8).reshape(rows, 1) for c in columns]
    parts, others = list(present), []
    for column, valid in zip(columns, present, strict=True):
        if _is_fixed(column.type):
            raw = _fixed_bytes(column)
            parts.append(raw if column.null_count == 0 else raw * valid)  # what lies under a null is arbitrary
        else:
            others.append(_value_bytes(column))
            lengths = np.asarray(pc.binary_length(others[-1]), "<i8")
            parts.append(lengths.view(np.uint8).reshape(rows, 8))
    fixed = np.hstack(parts)
    kind = pa.binary(fixed.shape[1])
    first = pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(fixed)]).cast(pa.large_binary())
    # rows in one piece: an object for each value of each row kept the garbage collector busy, longer than the hash
    joined = pc.binary_join_element_wise(first, *others, pa.scalar(b"", pa.large_binary()))
    _, offsets, data = joined.buffers()
    start, view, digests = hashlib.blake2b(head, digest_size=32), memoryview(data), []
    for a, b in pairwise(np.frombuffer(offsets, "<i8", rows + 1, 8 * joined.offset).tolist()):
        h = start.copy()
        h.update(view[a:b])
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


def _value_bytes(column: pa.Array) -> pa.Array:
    """large_binary[rows], nothing for a null."""
    kind = column.type
    if any(is_it(kind) for is_it in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        column = column.cast(pa.large_binary())
    elif not pa.types.is_large_binary(kind):
        column = pa.array([repr(v).encode() for v in column.to_pylist()], pa.large_binary())
    return column.fill_null(b"")
