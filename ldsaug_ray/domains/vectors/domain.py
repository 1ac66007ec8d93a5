"""The domain `vectors`: rows of numbers, float32[N, D], stored as lists, given to users as these or by column."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.columns import matrix, vectors
from ldsaug_ray.domains.base import DOMAINS, Domain
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.vectors import categories
from ldsaug_ray.domains.vectors.settings import VectorsData
from ldsaug_ray.domains.vectors.source import ROWS, RowSource, open_rows

Rows = NDArray[np.float32]
SHOWN = 8  # columns of a row on the page


class Vectors(Domain):
    """Tables, embeddings, latents: whatever is one row of numbers an item."""

    name, unit, item, column = "vectors", "rows", "row", "row"
    prepares = "read and check the rows; split them into train and test"
    files, data, codec, extractor = ROWS, VectorsData, "identity", "values"
    exported = "its values: a list, or a number or word for each column"

    def open(self, data: VectorsData) -> RowSource:
        """Parquet, CSV, .npy; see `open_rows`."""
        return open_rows(data)

    def stamp(self, data: VectorsData) -> str:
        """As of `Domain`."""
        return super().stamp(data)

    def read(self, payload: Rows, data: VectorsData) -> Rows:
        """The source has checked it."""
        return payload

    def empty(self, data: VectorsData) -> Rows:
        """As of `Domain`."""
        return np.empty((0, 1), np.float32)

    def pack(self, batch: Rows) -> pa.Array:
        """Lists of one length."""
        return vectors(batch)

    def unpack(self, table: pa.Table, column: str | None = None) -> Rows:
        """float32[N, D] of lists, or of a struct of columns."""
        stored = table[column or self.column]
        if not pa.types.is_struct(stored.type):
            return matrix(stored)
        return np.column_stack(
            [
                categories.read(part, field) if pa.types.is_string(field.type) else part.to_numpy(zero_copy_only=False)
                for part, field in zip(stored.combine_chunks().flatten(), stored.type, strict=True)
            ]
        ).astype(np.float32)

    def export(self, batch: Rows, names: Sequence[str], facts: Mapping[str, Any]) -> pa.Array:
        """Lists, or a struct with a number for each column where these have names, and the word for a category."""
        if facts["listed"]:
            return vectors(batch)
        known = facts.get("categories", {})
        numbers, parts = categories.split(batch, known)
        columns = [
            (pa.array(np.ascontiguousarray(x)), pa.field(name, pa.float32()))
            for x, name in zip(numbers.T, facts["columns"], strict=False)
        ]
        columns += [categories.words(hot, name, known[name]) for name, hot in parts.items()]
        return pa.StructArray.from_arrays([c for c, _ in columns], fields=[field for _, field in columns])

    def learn(self, batches: Iterator[Rows], source: Source, data: VectorsData) -> dict[str, Any]:
        """Columns, labels by their codes, and the mean and spread (standard deviation) of each column, in float64."""
        assert isinstance(source, RowSource)
        n, shift = 0, np.zeros(1)
        total = square = shift
        least = most = np.zeros(1, np.float32)
        contents: list[Any] = []
        for batch in batches:
            if not n:  # sums are taken about the first row: offsets must not cost digits
                shift, least, most = batch[0].astype(np.float64), batch[0], batch[0]
                contents = [hashlib.blake2b(digest_size=16) for _ in shift]
            for content, column in zip(contents, batch.T, strict=True):
                content.update(np.ascontiguousarray(column).tobytes())
            x = batch.astype(np.float64) - shift
            n, total, square = n + len(x), total + x.sum(0), square + (x * x).sum(0)
            least, most = np.minimum(least, batch.min(0)), np.maximum(most, batch.max(0))
        mean = total / n
        spread = np.sqrt(np.maximum(square / n - mean**2, 0))
        names = [f"value {k}" for k in range(len(mean))] if source.listed else list(source.columns)
        names += [f"{name} = {value}" for name, values in source.categories.items() for value in values]
        constant = [name for name, low, high in zip(names, least, most, strict=True) if low == high]
        spread[least == most] = 0.0
        first: dict[bytes, str] = {}
        twice = [(name, found) for name, c in zip(names, contents, strict=True)
                 if (found := first.setdefault(c.digest(), name)) != name and name not in constant]  # fmt: skip
        notes = []
        if constant:
            notes.append(f"constant over all training rows: {_some(constant)}; they add nothing to a distance")
        if twice:
            pairs = _some([f"{name} as {found}" for name, found in twice])
            notes.append(f"columns that are the same: {pairs}; a distance counts them as often")
        return {
            "columns": names,
            "listed": source.listed,
            "mean": (shift + mean).tolist(),
            "spread": spread.tolist(),
            "labels": source.labels,
            "notes": notes,
            **({"categories": source.categories} if source.categories else {}),
        }

    def alike(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The same categories."""
        return {"categories": facts["categories"]} if "categories" in facts else {}

    def show(self, batch: Rows, facts: Mapping[str, Any]) -> list[str]:
        """Some named values, or a line through those of a list."""
        from ldsaug_ray.domains.vectors.figures import line

        if facts["listed"]:
            return [line(row) for row in batch]
        out = []
        for row in self.export(batch, (), facts).to_pylist():
            told = [f"<b>{escape(v) if isinstance(v, str) else f'{v:.4g}'}</b> {escape(n)}" for n, v in row.items()]
            more = len(told) - SHOWN
            rest = f"<br>and {more} more" if more > 0 else ""
            out.append(f"<small>{'<br>'.join(told[:SHOWN])}{rest}</small>")
        return out

    def beside(self, real: Rows, made: Rows, facts: Mapping[str, Any]) -> list[str]:
        """Marginals, correlations, nearest rows."""
        from ldsaug_ray.domains.vectors.figures import beside

        return beside(real, made, facts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


VECTORS = DOMAINS.add("vectors", Vectors())
