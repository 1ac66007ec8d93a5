"""Content digests that do not depend on file names, row order, or the number of workers.

Each row is hashed; a table's digest is the sum of its rows' hashes modulo 2^256 (a multiset hash), so digests of parts
add up to the digest of the whole, in any order.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

_MODULUS = 1 << 256


def table_digest(table: pa.Table) -> int:
    """Sum over rows of BLAKE2b-256(row), modulo 2^256. Column names, types and values all count."""
    if table.num_rows == 0:
        return 0
    names = sorted(table.column_names)
    head = json.dumps([[n, str(table.schema.field(n).type)] for n in names]).encode()
    columns = [_row_bytes(table.column(n).combine_chunks()) for n in names]
    base = hashlib.blake2b(head, digest_size=32)
    total = 0
    for row in zip(*columns, strict=True):
        h = base.copy()
        for value in row:
            h.update(len(value).to_bytes(8, "little"))
            h.update(value)
        total += int.from_bytes(h.digest(), "little")
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


def _row_bytes(column: pa.Array | pa.ChunkedArray) -> list[bytes]:
    """One byte string a row; the cheap path covers everything that is stored at a fixed width."""
    if isinstance(column, pa.ChunkedArray):  # combine_chunks keeps a list of chunks when there are none
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if column.null_count == 0:
        if pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type):
            return _split(column.flatten().to_numpy(zero_copy_only=False), len(column))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _split(column.to_numpy(zero_copy_only=False), len(column))
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            return column.to_pylist()  # type: ignore[no-any-return]
        if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
            return [v.encode() for v in column.to_pylist()]
    return [repr(v).encode() for v in column.to_pylist()]


def _split(values: np.ndarray, rows: int) -> list[bytes]:
    data = np.ascontiguousarray(values).reshape(rows, -1)
    width = data.shape[1] * data.itemsize
    raw = data.tobytes()
    return [raw[k : k + width] for k in range(0, rows * width, width)]
