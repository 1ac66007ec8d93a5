"""Vectors of one length as an Arrow column, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def vectors(z: np.ndarray) -> pa.FixedSizeListArray:
    """float32[N, C] as a column of lists, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(z).reshape(-1)), z.shape[1])


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as [N, C]; without a copy where it is one chunk without nulls."""
    rows = column.combine_chunks()
    rows = rows.chunk(0) if isinstance(rows, pa.ChunkedArray) else rows
    values: np.ndarray = rows.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(rows), rows.type.list_size)
