"""The order of training: every row once an epoch over all ranks, and the same tail wherever it is resumed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.stream import Stream, read_chunk, training_chunks
from ldsaug_ray.domains.tables import item_table

FIXED = settings(deadline=None, derandomize=True, database=None)
PARTS = st.lists(st.integers(1, 9), min_size=1, max_size=7)


class Parts:
    """Stored parts whose image k is the number k, without files."""

    def __init__(self, rows: Sequence[int]):
        starts = np.cumsum([0, *rows])
        self.rows = list(rows)
        self.n = int(starts[-1])
        self.parts = [{"image": np.arange(a, b)} for a, b in pairwise(starts)]

    def read(self, start: int, stop: int, *, rank: int = 0, world: int = 1, mix: int = 2, seed: int = 0) -> list[int]:
        chunks = training_chunks(
            self.rows, seed=seed, rank=rank, world=world, shuffle_parts=mix, start=start, stop=stop
        )
        out: list[int] = []
        for chunk in chunks:
            assert len(out) < stop - start  # no chunk is read for nothing
            got = read_chunk(chunk, self.parts.__getitem__, seed=seed, rank=rank, world=world)["image"]
            assert len(got)
            out += got.tolist()
        return out[: stop - start]


@FIXED
@given(PARTS, st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_every_row_of_an_epoch_goes_to_one_rank_once(rows: list[int], world: int, mix: int, seed: int) -> None:
    parts = Parts(rows)
    if parts.n < world:
        return
    shares = [len(range(r, parts.n, world)) for r in range(world)]
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for rank, share in enumerate(shares):
            seen.update(parts.read(epoch * share, (epoch + 1) * share, rank=rank, world=world, mix=mix, seed=seed))
        assert seen == Counter(range(parts.n))


@FIXED
@given(PARTS, st.integers(1, 3), st.integers(1, 8), st.integers(0, 60), st.integers(0, 40))
def test_resuming_gives_the_same_tail(rows: list[int], world: int, mix: int, start: int, length: int) -> None:
    parts = Parts(rows)
    if parts.n < world:
        return
    rank = start % world
    whole = parts.read(0, start + length, rank=rank, world=world, mix=mix)
    assert parts.read(start, start + length, rank=rank, world=world, mix=mix) == whole[start:]
    assert len(whole) == start + length


@FIXED
@given(PARTS, st.integers(1, 5), st.integers(0, 30))
def test_a_chunk_says_how_much_of_it_is_new(rows: list[int], mix: int, start: int) -> None:
    chunks = list(training_chunks(rows, seed=1, rank=0, world=1, shuffle_parts=mix, start=start, stop=start + 50))
    assert all(c.skip == 0 for c in chunks[1:])
    assert chunks[0].skip < sum(rows[p] for p in chunks[0].parts)
    assert all(len(c.parts) <= mix for c in chunks)
    first_epoch = list(training_chunks(rows, seed=1, rank=0, world=1, shuffle_parts=mix, start=0, stop=sum(rows)))
    assert sorted(p for c in first_epoch for p in c.parts) == list(range(len(rows)))


@FIXED
@given(PARTS, st.integers(1, 3), st.integers(1, 4), st.integers(0, 40), st.lists(st.integers(1, 13), max_size=8))
def test_a_stream_gives_the_same_rows_however_they_are_taken(
    rows: list[int], world: int, mix: int, start: int, takes: list[int]
) -> None:
    parts = Parts(rows)
    if parts.n < world:
        return
    rank = start % world
    s = Stream(rows, parts.parts.__getitem__, seed=5, rank=rank, world=world, shuffle_parts=mix, start=start)
    got = [s.take(n)["image"] for n in takes]
    assert [len(g) for g in got] == takes
    expected = parts.read(start, start + sum(takes), rank=rank, world=world, mix=mix, seed=5)
    assert [int(k) for g in got for k in g] == expected


def test_nothing_to_read_is_no_chunk() -> None:
    assert Parts([3, 4]).read(5, 5) == []


def test_epochs_and_seeds_differ_and_repeat() -> None:
    parts = Parts([8, 8, 8, 8])
    first, second = parts.read(0, 32), parts.read(32, 64)
    assert sorted(first) == sorted(second) == list(range(32))
    assert len({tuple(x) for x in (first, second, parts.read(0, 32, seed=1), list(range(32)))}) == 4
    assert parts.read(0, 32) == first


def test_more_mixing_than_there_are_parts_is_one_uniform_shuffle() -> None:
    """Every image comes first equally often: a chi-squared test over 3,000 epochs, p > 0.001."""
    parts = Parts([2, 3, 1])
    orders = np.array(parts.read(0, 6 * 3000, mix=100)).reshape(3000, 6)
    for position in range(6):
        observed = np.bincount(orders[:, position], minlength=6)
        assert ((observed - 500) ** 2 / 500).sum() < 20.5


def test_every_chunk_is_shuffled_its_own_way() -> None:
    order = Parts([20] * 3).read(0, 60, mix=1)
    assert len({tuple(image % 20 for image in order[start : start + 20]) for start in (0, 20, 40)}) == 3


def test_only_a_few_parts_are_in_memory_at_a_time() -> None:
    order = Parts([5] * 6).read(0, 30, mix=2)
    for start in range(0, 30, 10):
        assert len({image // 5 for image in order[start : start + 10]}) == 2


def test_ranks_with_tiny_parts_are_all_served() -> None:
    """Chunks of one row: dealing must go on where the chunk before stopped, or a rank waits for ever."""
    parts = Parts([1, 1, 1])
    shares = [parts.read(0, 3, rank=r, world=2, mix=1) for r in range(2)]
    assert all(len(s) == 3 for s in shares)


def test_more_workers_than_rows() -> None:
    with pytest.raises(ValueError, match="2 rows for 3 workers"):
        Parts([1, 1]).read(0, 1, world=3)


# Files


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 16, 16, 3), np.uint8)


def write_raw(file: Location, images: np.ndarray) -> None:
    keys = [str(k) for k in range(len(images))]
    file.write_table(item_table("image", IMAGES.pack(images), keys, ["train"] * len(images)))


def write_png(file: Location, images: np.ndarray) -> None:
    payloads = []
    for image in images:
        with io.BytesIO() as buffer:
            Image.fromarray(image).save(buffer, "PNG")
            payloads.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    file.write_table(pa.table({"key": [str(k) for k in range(len(images))], "image": pa.array(payloads, kind)}))


@pytest.mark.parametrize("write", [write_raw, write_png])
def test_stored_images_are_read_bit_for_bit(tmp_path: Path, write: object) -> None:
    file = Location.of(tmp_path / "p.parquet")
    write(file, pixels(5))  # type: ignore[operator]
    read = IMAGES.unpack(file.read_table(["image"]))
    assert (read.dtype, read.shape) == (np.uint8, (5, 16, 16, 3))
    np.testing.assert_array_equal(read, pixels(5))


def test_raw_and_encoded_parts_mix(tmp_path: Path) -> None:
    files = [Location.of(tmp_path / name) for name in ("a", "b", "c")]
    for file, write, n in zip(files, (write_raw, write_png, write_raw), (3, 4, 5), strict=True):
        write(file, pixels(n))
    got = [
        image.tobytes()
        for chunk in training_chunks([3, 4, 5], seed=0, rank=0, world=1, shuffle_parts=2, start=0, stop=12)
        for image in read_chunk(
            chunk, lambda p: {"image": IMAGES.unpack(files[p].read_table(["image"]))}, seed=0, rank=0, world=1
        )["image"]
    ]
    assert sorted(got) == sorted(image.tobytes() for n in (3, 4, 5) for image in pixels(n))
