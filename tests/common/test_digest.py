"""Content digests: a multiset hash of rows, whatever the order, the chunks and the memory layout."""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsaug_ray.common.digest import add_digests, code_digest, digest_text, fingerprint, table_digest

FIXED = settings(deadline=None, derandomize=True, database=None)

VECTOR = pa.list_(pa.float32(), 3)
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "n": pa.int64(),
        "x": pa.float64(),
        "small": pa.int8(),
        "flag": pa.bool_(),
        "raw": pa.binary(),
        "pixels": pa.binary(4),
        "z": VECTOR,
        "marks": pa.struct([("Male", pa.int8()), ("Old", pa.int8())]),
        "tags": pa.list_(pa.string()),
        "when": pa.timestamp("us"),
        "large": pa.large_string(),
        "cut": pa.dictionary(pa.int32(), pa.string()),
    }
)
_floats = st.floats(width=32, allow_nan=False)
_mark = st.none() | st.integers(-1, 1)
ROW = st.fixed_dictionaries(
    {
        "key": st.none() | st.text(max_size=6),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "x": st.none() | st.floats(allow_nan=False),
        "small": st.none() | st.integers(-128, 127),
        "flag": st.none() | st.booleans(),
        "raw": st.none() | st.binary(max_size=6),
        "pixels": st.none() | st.binary(min_size=4, max_size=4),
        "z": st.none() | st.lists(_floats, min_size=3, max_size=3),
        "marks": st.none() | st.fixed_dictionaries({"Male": _mark, "Old": _mark}),
        "tags": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
        "when": st.none() | st.datetimes(),
        "large": st.none() | st.text(max_size=3),
        "cut": st.none() | st.sampled_from(["train", "test"]),
    }
)
ROWS = st.lists(ROW, max_size=12)


def table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


@FIXED
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_columns_does_not_count(rows: list[dict[str, object]], random: object) -> None:
    expected = table_digest(table(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    names = list(SCHEMA.names)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert table_digest(table(shuffled).select(names)) == expected


@FIXED
@given(ROWS, st.lists(st.integers(0, 12), max_size=4))
def test_parts_add_up_and_chunks_do_not_count(rows: list[dict[str, object]], cuts: list[int]) -> None:
    """Also where only some parts have nulls: a row's hash must not depend on its neighbours."""
    whole = table_digest(table(rows))
    ends = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    parts = [table(rows[a:b]) for a, b in pairwise(ends)]
    assert add_digests([table_digest(p) for p in parts]) == whole
    assert table_digest(pa.concat_tables(parts)) == whole
    assert add_digests([table_digest(table([row])) for row in rows]) == whole


@FIXED
@given(ROWS, st.integers(0, 12), st.integers(0, 12))
def test_a_slice_is_its_own_rows(rows: list[dict[str, object]], start: int, length: int) -> None:
    """Arrow's slices share memory and carry an offset; nested ones twice."""
    expected = table_digest(table(rows[start : start + length]))
    assert table_digest(table(rows).slice(start, length)) == expected
    twice = table(rows).slice(min(1, start)).slice(start - min(1, start), length)
    assert table_digest(twice) == expected


@FIXED
@given(ROWS.filter(bool), ROW, st.integers(0, 11), st.sampled_from(SCHEMA.names))
def test_any_other_value_is_another_digest(
    rows: list[dict[str, object]], other: dict[str, object], at: int, name: str
) -> None:
    changed = [dict(row) for row in rows]
    changed[at % len(rows)][name] = other[name]
    before, after = table(rows), table(changed)
    same = repr(after.to_pylist()) == repr(before.to_pylist())  # repr: 0.0 equals -0.0
    assert (table_digest(after) == table_digest(before)) == same


@FIXED
@given(ROWS.filter(bool))
def test_duplicates_count(rows: list[dict[str, object]]) -> None:
    assert table_digest(table([*rows, rows[0]])) != table_digest(table(rows))
    assert table_digest(table(rows * 2)) == add_digests([table_digest(table(rows))] * 2)


@pytest.mark.parametrize(
    "column",
    [
        lambda n: pa.FixedSizeListArray.from_arrays(pa.array(np.arange(n * 5, dtype=np.float32)), 5),
        lambda n: pa.array([bytes([k % 256]) * 7 for k in range(n)], pa.binary(7)),
        lambda n: pa.array([f"{k}é" * (k % 3) for k in range(n)]),
        lambda n: pa.array([f"{k}" for k in range(n)], pa.large_string()),
        lambda n: pa.array([b"x" * k for k in range(n)]),
        lambda n: pa.array(range(n), pa.int16()),
        lambda n: pa.array([k % 3 == 0 for k in range(n)]),
        lambda n: pa.array([None if k % 3 else k for k in range(n)], pa.int32()),
        lambda n: pa.array([None if k % 3 else f"{k}" for k in range(n)]),
        lambda n: pa.array([None if k % 4 else [1.0 * k, 2.0] for k in range(n)], pa.list_(pa.float64(), 2)),
        lambda n: pa.array([{"a": k, "b": None} for k in range(n)], pa.struct([("a", pa.int8()), ("b", pa.int8())])),
        lambda n: pa.array([f"{k % 3}" for k in range(n)]).dictionary_encode(),
        lambda n: pa.array([[[k, 1], [2, k]] for k in range(n)], pa.list_(pa.list_(pa.int32(), 2), 2)),
    ],
)
@pytest.mark.parametrize(("start", "length"), [(0, 20), (1, 19), (7, 8), (13, 1), (20, 0)])
def test_slices_against_fresh_copies(column: Callable[[int], pa.Array], start: int, length: int) -> None:
    values = column(20)
    view = pa.table({"c": values.slice(start, length)})
    fresh = pa.table({"c": pa.array(values.to_pylist()[start : start + length], values.type)})
    assert table_digest(view) == table_digest(fresh)
    taken = pa.table({"c": values.take(pa.array(range(start, start + length), pa.int64()))})
    assert table_digest(taken) == table_digest(fresh)


def test_what_lies_under_a_null_does_not_count() -> None:
    valid = pa.py_buffer(bytes([0b101]))
    a, b = (
        pa.Array.from_buffers(pa.int32(), 3, [valid, pa.py_buffer(np.array(v, np.int32))])
        for v in ([1, 7, 3], [1, 9, 3])
    )
    assert table_digest(pa.table({"c": a})) == table_digest(pa.table({"c": b}))
    zero = pa.table({"c": pa.array([1, 0, 3], pa.int32())})
    assert table_digest(zero) != table_digest(pa.table({"c": a}))
    text = [pa.py_buffer(np.array([0, 1, 3, 4], np.int32)), pa.py_buffer(b"axxb")]
    s = pa.Array.from_buffers(pa.string(), 3, [valid, *text])
    assert table_digest(pa.table({"c": s})) == table_digest(pa.table({"c": ["a", None, "b"]}))
    assert table_digest(pa.table({"c": s})) != table_digest(pa.table({"c": ["a", "", "b"]}))


def test_names_and_types_count() -> None:
    values = [1, 2, 3]
    digests = {
        table_digest(pa.table({"a": pa.array(values, kind)}))
        for kind in (pa.int8(), pa.int64(), pa.float64(), pa.uint64())
    }
    digests.add(table_digest(pa.table({"b": pa.array(values, pa.int64())})))
    digests.add(table_digest(pa.table({"a": ["1", "2", "3"]})))
    digests.add(table_digest(pa.table({"a": [b"1", b"2", b"3"]})))
    digests.add(table_digest(pa.table({"a": pa.array(["1", "2", "3"]).dictionary_encode()})))
    assert len(digests) == 8


def test_values_do_not_run_into_each_other() -> None:
    ab = pa.table({"a": ["ab", "c"], "b": ["c", "ab"]})
    assert table_digest(ab) != table_digest(pa.table({"a": ["a", "ab"], "b": ["bc", "c"]}))
    assert table_digest(ab) != table_digest(pa.table({"a": ["c", "ab"], "b": ["ab", "c"]}).rename_columns(["x", "y"]))
    one = pa.table({"a": ["x"], "b": pa.array([None], pa.string())})
    assert table_digest(one) != table_digest(pa.table({"a": pa.array([None], pa.string()), "b": ["x"]}))


def test_a_dictionarys_codes_do_not_count() -> None:
    a = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), ["x", "y"])
    b = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), ["y", "x"])
    assert table_digest(pa.table({"c": a})) == table_digest(pa.table({"c": b}))
    both = pa.table({"c": pa.chunked_array([a, b])})
    assert table_digest(both) == add_digests([table_digest(pa.table({"c": a}))] * 2)


def test_floats_count_by_their_bits() -> None:
    def one(value: float) -> int:
        return table_digest(pa.table({"x": pa.array([value], pa.float64())}))

    other_nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    assert one(float("nan")) == one(float("nan"))
    assert len({one(0.0), one(-0.0), one(float("nan")), one(other_nan), one(float("inf"))}) == 5
    assert one(float("nan")) != table_digest(pa.table({"x": pa.array([None], pa.float64())}))


def test_nothing_is_zero() -> None:
    assert table_digest(SCHEMA.empty_table()) == 0
    assert table_digest(pa.table({"a": pa.chunked_array([], pa.string())})) == 0
    assert add_digests([]) == 0
    assert digest_text(0) == "0" * 64


def test_nothing_but_nulls() -> None:
    two = pa.table({"a": pa.nulls(2), "z": pa.nulls(2, VECTOR), "p": pa.nulls(2, pa.binary(3))})
    assert table_digest(two) == add_digests([table_digest(two.slice(1))] * 2)


def test_a_null_inside_a_vector_is_refused() -> None:
    z = pa.FixedSizeListArray.from_arrays(pa.array([1.0, None, 3.0, 4.0]), 2)
    with pytest.raises(ValueError, match="a null inside a list"):
        table_digest(pa.table({"z": z}))
    assert table_digest(pa.table({"z": z.slice(1)})) == table_digest(pa.table({"z": pa.array([[3.0, 4.0]], z.type)}))


def test_more_rows_than_are_hashed_at_once() -> None:
    t = pa.table({"n": np.arange(20_000)})
    assert table_digest(t) == add_digests([table_digest(t.slice(a, 5_000)) for a in range(0, 20_000, 5_000)])


def test_many_bytes_are_cut_to_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    t = pa.table({"k": ["one", None, "three"], "z": pa.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], VECTOR)})
    whole = table_digest(t)
    monkeypatch.setattr("ldsaug_ray.common.digest._BYTES_AT_ONCE", 1)
    assert table_digest(t) == whole


def test_a_row_is_hashed_as_documented() -> None:
    """By hashlib alone: digests in manifests of earlier versions stay comparable."""
    t = pa.table({"b": ["αβ", None], "a": pa.array([7, -1], pa.int64()), "c": [[1, 2], []]})
    head = b'[["a", "int64"], ["b", "string"], ["c", "list<item: int64>"]]'
    rows = [
        struct.pack("<3B", 1, 1, 1) + struct.pack("<3q", 7, 4, 6) + "αβ".encode() + b"[1, 2]",
        struct.pack("<3B", 1, 0, 1) + struct.pack("<3q", -1, 0, 2) + b"[]",
    ]
    hashes = [int.from_bytes(hashlib.blake2b(head + row, digest_size=32).digest(), "little") for row in rows]
    assert table_digest(t) == sum(hashes) % 2**256


@FIXED
@given(st.lists(st.integers(0, 2**256 - 1)))
def test_sums_wrap_at_256_bits(digests: list[int]) -> None:
    total = add_digests(digests)
    assert total == sum(digests) % 2**256
    assert len(digest_text(total)) == 64
    assert int(digest_text(total), 16) == total


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert len({fingerprint(v) for v in (1, 1.0, "1", [1], None, {"1": None}, [1, 2], [2, 1])}) == 8


def test_code_counts_where_it_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "of_digest.py"
    found = set()
    for code in ("A = 1\n", "A = 2\n", "A = 1\n"):
        file.write_text(code)
        found.add(code_digest(["mixture", "of_digest:A", "of_digest:B"]))
    assert len(found) == 2
    assert code_digest(["of_digest:B"]) in found  # the module is what counts
    assert code_digest(["mixture", "recall"]) == code_digest([]) == ""
    sys.modules.pop("of_digest")
