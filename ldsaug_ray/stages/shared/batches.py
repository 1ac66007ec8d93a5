"""What a rank of a training eats: one row a step, read ahead where the engine can.

A row holds the step's training items and what A adds, so that both streams come through one pipeline and its cost is
paid once for many steps. A row depends on (seed, rank, step) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import matrix
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains import DOMAINS, Domain
from ldsaug_ray.domains.base import Array
from ldsaug_ray.domains.stream import Columns, Stream
from ldsaug_ray.engines.base import Rank
from ldsaug_ray.stages.shared.prior import Judged

_BLOCK_BYTES = 16_000_000
_BLOCK_STEPS = 64
_TASKS = 4096


@dataclass(frozen=True)
class Parts:
    """Stored parts below the run directory and how many of their rows each step takes, over all workers."""

    files: tuple[tuple[str, int], ...]  # (file, rows)
    per_step: int

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(rows for _, rows in self.files)


@dataclass(frozen=True)
class AugmentedParts(Parts):
    """`augmented/`, and what is read of it.

    Attributes:
        images: the decoded items.
        latents: z.
        power: an item weighs exp(power · log LDS − log_mean), which is 1 in the mean.
    """

    images: bool
    latents: bool
    power: float
    log_mean: float


class StepBatch(NamedTuple):
    """One rank's share of a step."""

    images: np.ndarray  # a batch, such as uint8[B, R, R, 3]
    augmented: dict[str, np.ndarray] | None  # a batch `image` and z float32[M, d] where read, weight float32[M]
    judged: np.ndarray | None = None  # float32[B, d], latents whose pictures the discriminator judges


def step_batches(
    root: Location,
    real: Parts,
    augmented: AugmentedParts | None,
    judged: Judged | None,
    steps: range,
    rank: Rank,
    *,
    seed: int,
    shuffle_parts: int,
    domain: str,
    blank: Array,
) -> Iterator[StepBatch]:
    """This rank's batches of `steps`. blank: rows of the dtype and shape that the model takes."""
    pictures = real.per_step + (augmented.per_step if augmented is not None and augmented.images else 0)
    in_block = min(_BLOCK_STEPS, max(1, _BLOCK_BYTES // (max(1, pictures // rank.world) * max(1, blank[:1].nbytes))))
    in_task = max(_BLOCK_STEPS, -(-len(steps) // _TASKS))
    tasks = [{"first": a, "last": min(a + in_task, steps.stop)} for a in range(steps.start, steps.stop, in_task)]
    given = (root, real, augmented, judged, seed, rank.number, rank.world, shuffle_parts, in_block, domain, blank.dtype)
    for block in rank.stream(_ReadSteps, given, tasks):
        for step in range(len(block)):
            yield _unpacked(block.slice(step, 1), blank)


class _ReadSteps:
    """First and last step to one row a step. It goes on where the call before stopped."""

    def __init__(
        self,
        root: Location,
        real: Parts,
        augmented: AugmentedParts | None,
        judged: Judged | None,
        seed: int,
        rank: int,
        world: int,
        shuffle_parts: int,
        in_block: int,
        domain: str,
        dtype: np.dtype[Any],
    ):
        self._root, self._real, self._augmented, self._world = root, real, augmented, world
        self._order = {"rank": rank, "world": world, "shuffle_parts": shuffle_parts}
        self._seed, self._in_block = seed, in_block
        self._domain, self._dtype = DOMAINS.get(domain), dtype
        self._judged = None if judged is None else (judged.draws(), judged.seed)
        self._next = -1

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        first, last = table["first"][0].as_py(), table["last"][0].as_py()
        if first != self._next:
            self._open(first)
        self._next = last
        for start in range(first, last, self._in_block):
            columns: dict[str, list[bytes]] = {}
            for step in range(start, min(start + self._in_block, last)):
                if self._judged is not None:
                    draws, seed = self._judged
                    share = self._real.per_step // self._world
                    begin = step * self._real.per_step + self._order["rank"] * share
                    columns.setdefault("judged.z", []).append(draws.sample(begin, begin + share, seed).tobytes())
                for name, (stream, share) in self._streams.items():
                    for column, values in stream.take(share).items():
                        columns.setdefault(f"{name}.{column}", []).append(self._bytes(column, values))
            yield pa.table({name: pa.array(rows, pa.binary(len(rows[0]))) for name, rows in columns.items()})

    def _bytes(self, column: str, values: np.ndarray) -> bytes:
        return np.ascontiguousarray(values, self._dtype if column == "image" else None).tobytes()

    def _open(self, step: int) -> None:
        """Streams that stand at `step`."""
        self._streams = {"real": self._stream(self._real, self._read_real, self._seed, step)}
        if self._augmented is not None:  # in another order than the images
            self._streams["augmented"] = self._stream(self._augmented, self._read_augmented, self._seed + 1, step)

    def _stream(self, parts: Parts, read: Callable[[int], Columns], seed: int, step: int) -> tuple[Stream, int]:
        share = parts.per_step // self._world
        return Stream([r for _, r in parts.files], read, seed=seed, start=step * share, **self._order), share

    def _read_real(self, part: int) -> Columns:
        file = self._root / self._real.files[part][0]
        return {"image": self._domain.unpack(file.read_table([self._domain.column]))}

    def _read_augmented(self, part: int) -> Columns:
        assert self._augmented is not None
        return _read_augmented(self._root / self._augmented.files[part][0], self._augmented, self._domain)


def _read_augmented(file: Location, parts: AugmentedParts, domain: Domain) -> Columns:
    """Columns image and z where asked for, and weight, of one part of `augmented/`."""
    names = [
        "log_lds",
        *domain.qualities,
        *([domain.column] if parts.images else []),
        *(["z"] if parts.latents else []),
    ]
    table = file.read_table(names)
    columns: dict[str, np.ndarray] = {
        "weight": np.exp(parts.power * table["log_lds"].to_numpy() - parts.log_mean).astype(np.float32)
    }
    if parts.images:
        columns["image"] = domain.unpack(table)
        quality = {name: table[name].to_numpy() for name in domain.qualities}
        usable = np.zeros(len(table), np.float32)
        usable[domain.usable(quality)] = 1
        columns["weight"] *= usable  # such as of texts that are no molecules
    if parts.latents:
        columns["z"] = matrix(table["z"])
    return columns


def _unpacked(row: pa.Table, blank: Array) -> StepBatch:
    """A row of `_ReadSteps` as arrays, without a copy."""
    rows = (-1, *blank.shape[1:])

    def column(name: str, dtype: Any, shape: Sequence[int]) -> np.ndarray:
        return np.frombuffer(row[name][0].as_buffer(), dtype).reshape(shape)

    images = column("real.image", blank.dtype, rows)
    judged = None
    if "judged.z" in row.column_names:
        judged = column("judged.z", np.float32, (len(images), -1))
    if "augmented.weight" not in row.column_names:
        return StepBatch(images, None, judged)
    found = {"weight": column("augmented.weight", np.float32, (-1,))}
    if "augmented.image" in row.column_names:
        found["image"] = column("augmented.image", blank.dtype, rows)
    if "augmented.z" in row.column_names:
        found["z"] = column("augmented.z", np.float32, (len(found["weight"]), -1))
    return StepBatch(images, found, judged)
