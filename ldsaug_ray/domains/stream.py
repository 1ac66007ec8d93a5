"""The order in which training sees its images: a pure function of (seed, parts), so a resumed run meets it again.

The stored parts of an epoch are shuffled, taken a few at a time, and their rows shuffled together: a chunk. Mixing
`shuffle_parts` parts bounds memory; the order is uniform over the data where all parts fit into one chunk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Columns = Mapping[str, np.ndarray]
"""Arrays with one row an image."""


@dataclass(frozen=True)
class Chunk:
    """Rows of a few parts in a shuffled order."""

    epoch: int
    number: int  # within the epoch
    parts: tuple[int, ...]
    first: int  # this rank's first row: ranks deal on where the chunk before stopped
    skip: int  # rows at its head that a resumed run has seen


def training_chunks(
    part_rows: Sequence[int], *, seed: int, rank: int, world: int, shuffle_parts: int, start: int, stop: int
) -> Iterator[Chunk]:
    """Chunks that hold rows `start`..`stop`-1 of this rank's endless stream.

    Args:
        part_rows: rows of every stored part.
        seed: of the order.
        rank, world: this worker and how many there are; each row of an epoch goes to exactly one rank.
        shuffle_parts: parts mixed at a time.
        start, stop: rows of the rank's stream, 0 <= start <= stop.
    """
    seen = 0
    epoch = 0
    if sum(part_rows) < world:
        raise ValueError(f"{sum(part_rows)} rows for {world} workers")
    while seen < stop:
        order = np.random.default_rng([seed, epoch, 0]).permutation(len(part_rows))
        dealt = 0  # rows of the epoch so far, over all ranks
        for number in range(0, len(order), shuffle_parts):
            parts = tuple(int(p) for p in order[number : number + shuffle_parts])
            in_chunk = sum(part_rows[p] for p in parts)
            first = (rank - dealt) % world
            rows = len(range(first, in_chunk, world))
            if max(seen, start) < min(seen + rows, stop):
                yield Chunk(epoch, number, parts, first, max(0, start - seen))
            seen += rows
            dealt += in_chunk
        epoch += 1


def read_chunk(chunk: Chunk, read: Callable[[int], Columns], *, seed: int, rank: int, world: int) -> Columns:
    """The chunk's rows for this rank, in the order training sees them.

    Args:
        chunk: of `training_chunks` with the same seed, rank and world.
        read: a part's number to its columns.
    """
    parts = [read(p) for p in chunk.parts]
    rows = sum(len(next(iter(columns.values()))) for columns in parts)
    order = np.random.default_rng([seed, chunk.epoch, 1 + chunk.number]).permutation(rows)
    mine = order[chunk.first :: world][chunk.skip :]
    return {name: np.concatenate([columns[name] for columns in parts])[mine] for name in parts[0]}


class Stream:
    """This rank's endless order of rows, taken a few at a time; one chunk is held in memory.

    Args:
        part_rows, seed, rank, world, shuffle_parts, start: as in `training_chunks`.
        read: a part's number to its columns.
    """

    def __init__(
        self,
        part_rows: Sequence[int],
        read: Callable[[int], Columns],
        *,
        seed: int,
        rank: int,
        world: int,
        shuffle_parts: int,
        start: int = 0,
    ):
        self._chunks = training_chunks(
            part_rows, seed=seed, rank=rank, world=world, shuffle_parts=shuffle_parts, start=start, stop=sys.maxsize
        )
        self._read = lambda chunk: read_chunk(chunk, read, seed=seed, rank=rank, world=world)
        self._held: Columns = {}
        self._left = 0

    def take(self, n: int) -> Columns:
        """The next `n` >= 1 rows."""
        taken = []
        while n:
            if not self._left:
                self._held = {}  # before the next is read: memory for one chunk, not two
                self._held = self._read(next(self._chunks))
                self._left = len(next(iter(self._held.values())))
            k = min(n, self._left)
            taken.append({name: c[len(c) - self._left :][:k] for name, c in self._held.items()})
            self._left -= k
            n -= k
        return {name: np.concatenate([t[name] for t in taken]) for name in taken[0]}
