"""Molecules in text files: SMILES, one a line, or CSV. A record is a line by its offset: any part is read alone.

A name that follows a SMILES is not read: names repeat. In CSV the column is data.smiles_column, and a line is a row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.molecules.settings import MoleculeData
from ldsaug_ray.domains.sources.base import LISTING, Reading, Source, did_you_mean, listing, locate, unreadable
from ldsaug_ray.domains.sources.walk import ending
from ldsaug_ray.errors import InputError, StorageError

DELIMITERS = {"csv": ",", "tsv": "\t"}
SPAN = 1 << 24  # bytes read at a time
_LISTED = 1 << 22


class TextSource(Source):
    """Lines of text files. The key is data.key_column, else `FILE#LINE`, counted from 1."""

    def __init__(
        self, root: Location, files: Sequence[str], data: MoleculeData, passed_over: Mapping[str, int]
    ) -> None:
        """`files`: relative to `root`, sorted; "" where root is the one file.

        Raises:
            InputError: a CSV lacks a column that the settings name, or they ask for columns of attributes.
        """
        if data.attributes == "columns":
            raise InputError(
                "data.attributes = columns: columns of text files are not read as attributes; give Parquet, a file in "
                "CelebA's layout, or null"
            )
        self.uri, self.root, self.passed_over = root.uri, root, passed_over
        self.files, self.columns = tuple(files), (data.smiles_column, data.key_column)
        self.shard_in_key = data.shard_in_key

    def list(self) -> pa.Table:
        """See `Source.list`; empty lines are passed over, and counted."""
        parts, empty = [LISTING.empty_table()], 0
        for file in self.files:
            name, keys, starts, lengths = file or self.root.name, [], [], []
            columns = self._columns(file)
            for number, (start, line) in enumerate(self._lines(file), 1):
                if columns is not None and number == 1:
                    continue
                if not line.strip():
                    empty += 1
                    continue
                key = None
                if columns is not None and columns[1] is not None:
                    key = self._field(file, line, columns[1])
                    key = f"{name}/{key}" if self.shard_in_key and key else key
                keys.append(key or f"{name}#{number}")
                starts.append(start)
                lengths.append(len(line))
            parts.append(listing(keys, [file] * len(keys), starts, lengths))
        if empty:
            self.passed_over = {**self.passed_over, "empty lines": empty}
        return pa.concat_tables(parts).combine_chunks()

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`: the text of each molecule, as bytes."""
        files, starts, lengths = (records[name].to_pylist() for name in ("file", "index", "length"))
        first = 0
        for stop in range(1, len(files) + 1):
            if (
                stop == len(files)
                or files[stop] != files[first]
                or not starts[stop - 1] < starts[stop] < starts[first] + SPAN
            ):
                yield from self._read_run(files[first], starts[first:stop], lengths[first:stop])
                first = stop

    def _read_run(self, file: str, starts: Sequence[int], lengths: Sequence[int]) -> Iterator[Reading]:
        place = locate(self.root, file)
        try:
            columns = self._columns(file)
            with place.fs.open_input_file(place.path) as f:
                f.seek(starts[0])
                text = f.read(starts[-1] + lengths[-1] - starts[0])
        except OSError as e:
            yield from [(None, unreadable(e), None)] * len(starts)
            return
        for start, length in zip(starts, lengths, strict=True):
            line = text[start - starts[0] :][:length]
            if columns is None:
                yield line, None, None
                continue
            found = self._field(file, line, columns[0])
            yield (
                (None, f"the row has no column {self.columns[0]}", None)
                if found is None
                else (
                    found.encode(),
                    None,
                    None,
                )
            )

    def _columns(self, file: str) -> tuple[int, int | None] | None:
        """Where a CSV has SMILES and keys; none where the file is no CSV.

        Raises:
            InputError: it has no such column.
        """
        if self._ending(file) not in DELIMITERS:
            return None
        header = next((line for _, line in self._lines(file)), b"")
        names = self._split(file, header.removeprefix(b"\xef\xbb\xbf"))
        for setting, name in zip(("smiles_column", "key_column"), self.columns, strict=True):
            if name is not None and names.count(name) != 1:
                found = f"stands in it {names.count(name)} times" if name in names else did_you_mean(name, names)
                if len(names) == 1 and set(";\t|") & set(names[0]):
                    found = f"its one column is {names[0]!r}: cells of .csv stand between commas, of .tsv between tabs"
                raise InputError(f"{locate(self.root, file).uri}: data.{setting} = {name!r} is not a column; {found}")
        smiles, key = self.columns
        return names.index(smiles), None if key is None else names.index(key)

    def _field(self, file: str, line: bytes, column: int) -> str | None:
        fields = self._split(file, line)
        return fields[column].strip() if column < len(fields) else None

    def _split(self, file: str, line: bytes) -> Sequence[str]:
        try:
            text = line.decode("utf-8", "backslashreplace")
            return next(csv.reader([text], delimiter=DELIMITERS[self._ending(file)]), [])
        except csv.Error:
            return []

    def _ending(self, file: str) -> str:
        return ending(file or self.root.name)

    def _lines(self, file: str) -> Iterator[tuple[int, bytes]]:
        """Offset and content of each line, without its end, a few megabytes in memory.

        Raises:
            StorageError: the file cannot be read.
        """
        place = locate(self.root, file)
        try:
            with place.fs.open_input_stream(place.path, compression=None) as f:
                start, left = 0, b""
                while block := f.read(_LISTED):
                    *lines, left = (left + block).split(b"\n")
                    for line in lines:
                        yield start, line.removesuffix(b"\r")
                        start += len(line) + 1
                if left:
                    yield start, left.removesuffix(b"\r")
        except OSError as e:
            raise StorageError(f"{place.uri}: {unreadable(e)}") from e
