"""Parquet files that differ among each other: each is looked at by its own schema, and what cannot be used is named."""

from __future__ import annotations

import pickle

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.domains.images import IMAGES, plan
from ldsaug_ray.errors import InputError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BYTES_ONLY = pa.struct([("bytes", pa.binary())])


def keys_and_payloads(source) -> dict:
    """key -> (bytes, reason); through a pickled copy."""
    table = source.list()
    readings = pickle.loads(pickle.dumps(source)).read(table)
    return {k: (p, r) for k, (p, r, _) in zip(table["key"].to_pylist(), readings, strict=True)}


@pytest.fixture
def pictures(encode) -> list[bytes]:
    """Eight different PNGs."""
    return [encode(np.full((16, 16), i, np.uint8)) for i in range(8)]


@pytest.fixture
def write(tmp_path):
    """write(name, column=array, …) into the source's folder."""

    def run(name: str, **columns) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / name)

    return run


def with_paths(payloads, names):
    return pa.array([{"bytes": p, "path": n} for p, n in zip(payloads, names, strict=True)], STRUCT)


def test_files_without_the_key_column(make_data, write, tmp_path, pictures):
    write("a.parquet", image=pictures[:2], image_id=["p", "q"])
    write("b.parquet", image=pictures[2:4])
    source = IMAGES.open(make_data(tmp_path))
    assert keys_and_payloads(source) == {
        "p": (pictures[0], None),
        "q": (pictures[1], None),
        "b.parquet#0": (pictures[2], None),
        "b.parquet#1": (pictures[3], None),
    }
    assert "image_id of 2 rows, FILE#ROW of 2 rows (FILE#ROW in b.parquet)" in source.notes[0]
    with pytest.raises(InputError, match=r"data\.key_column = 'image_id': .*b\.parquet has no such column"):
        IMAGES.open(make_data(tmp_path, key_column="image_id"))
    write("b.parquet", image=pictures[2:4], image_id=[0.5, 1.5])
    with pytest.raises(InputError, match=r"data\.key_column = 'image_id' is double in .*b\.parquet"):
        IMAGES.open(make_data(tmp_path, key_column="image_id"))


def test_every_kind_of_image_column(make_data, write, tmp_path, pictures):
    write("a.parquet", image=with_paths(pictures[:2], ["x.png", "y.png"]))
    write("b.parquet", image=pa.array([{"bytes": pictures[2]}], BYTES_ONLY))
    write("c.parquet", image=pa.array(pictures[3:4], pa.binary()))
    write("d.parquet", image=pa.array(pictures[4:5], pa.large_binary()))
    write("e.parquet", image=pa.array(pictures[5:6], pa.binary_view()))
    write("f.parquet", image=pa.array(pictures[6:7]).dictionary_encode())
    write("g.parquet", image=pa.nulls(1))
    extra = pa.struct([("path", pa.large_string()), ("height", pa.int32()), ("bytes", pa.large_binary())])
    write("h.parquet", image=pa.array([{"path": "z.png", "height": 1, "bytes": pictures[7]}, None], extra))
    assert keys_and_payloads(IMAGES.open(make_data(tmp_path))) == {
        # one row lacks its path (the null), so that no path is a key
        "a.parquet#0": (pictures[0], None),
        "a.parquet#1": (pictures[1], None),
        **{f"{c}.parquet#0": (pictures[i], None) for i, c in enumerate("bcdef", 2)},
        "g.parquet#0": (None, "the image is null"),
        "h.parquet#0": (pictures[7], None),
        "h.parquet#1": (None, "the image is null"),
    }
    (tmp_path / "h.parquet").unlink()
    assert list(keys_and_payloads(IMAGES.open(make_data(tmp_path))))[:3] == ["x.png", "y.png", "b.parquet#0"]


@pytest.mark.parametrize(
    "keys",
    [
        pa.array(["p", None]),
        pa.array(["p", None], pa.large_string()),
        pa.array(["p", None], pa.string_view()),
        pa.array(["p", None]).dictionary_encode(),
    ],
)
def test_every_kind_of_key(make_data, write, tmp_path, pictures, keys):
    write("a.parquet", image=pictures[:2], image_id=keys)
    assert list(keys_and_payloads(IMAGES.open(make_data(tmp_path)))) == ["p", "a.parquet#1"]
    source = IMAGES.open(make_data(tmp_path, shard_in_key=True))
    assert list(keys_and_payloads(source)) == ["a/p", "a.parquet#1"]


def test_keys_and_paths_that_are_no_utf8(make_data, write, tmp_path, pictures):
    broken = pa.array([b"caf\xe9", b"ok"]).view(pa.string())
    paths = pa.StructArray.from_arrays([pa.array([pictures[0], None]), broken], fields=list(STRUCT))
    write("a.parquet", image=paths, image_id=broken)
    assert keys_and_payloads(IMAGES.open(make_data(tmp_path))) == {
        r"caf\xe9": (pictures[0], None),
        "ok": (None, "the image's bytes are null; ok: the file is gone"),
    }
    assert len(plan(IMAGES, IMAGES.open(make_data(tmp_path)), make_data(tmp_path), 0).units[0]) == 2


def test_columns_of_one_name(make_data, tmp_path, pictures):
    def write(*names: str) -> None:
        columns = {"image": pa.array(pictures[:2]), "Male": pa.array([0, 1]), "image_id": pa.array(["p", "q"])}
        pq.write_table(pa.table([columns[n] for n in names], names=list(names)), tmp_path / "a.parquet")

    for names in (["image", "image"], ["image", "image_id", "image_id"]):
        write(*names)
        with pytest.raises(InputError, match=rf"a\.parquet: 2 columns are called '{names[-1]}'"):
            IMAGES.open(make_data(tmp_path))
    write("image", "Male", "Male")
    with pytest.raises(InputError, match=r"a\.parquet: 2 columns are called 'Male'"):
        IMAGES.open(make_data(tmp_path, attributes="columns"))
    assert len(keys_and_payloads(IMAGES.open(make_data(tmp_path)))) == 2  # nobody asks for Male


def test_files_without_rows(make_data, write, tmp_path, pictures):
    write("a.parquet", image=pa.nulls(0), image_id=pa.nulls(0), Male=pa.nulls(0))  # as pandas writes an empty frame
    write("b.parquet", caption=pa.array([], pa.string()))
    with pytest.raises(InputError, match="no row in 2 Parquet files"):
        IMAGES.open(make_data(tmp_path))
    write("c.parquet", image=pictures[:2], image_id=["p", "q"], Male=[0, 1])
    source = IMAGES.open(make_data(tmp_path, attributes="columns", key_column="image_id"))
    assert list(keys_and_payloads(source)) == ["p", "q"]
    assert source.passed_over == {"Parquet files without rows": 2}
    assert source.attribute_names == ("Male",)


def test_attributes_by_each_files_own_schema(make_data, write, tmp_path, pictures):
    write("a.parquet", image=pictures[:1], Male=pa.array([1], pa.int8()), text=["x"])
    write("b.parquet", image=pictures[1:2], Male=pa.nulls(1), text=["x"])
    write("c.parquet", image=pictures[2:3], Male=[False], text=["x"])
    source = IMAGES.open(make_data(tmp_path, attributes="columns"))
    assert [a for _, _, a in source.read(source.list())] == [{"Male": 1}, None, {"Male": -1}]
    write("b.parquet", image=pictures[1:2], Male=["yes"], text=["x"])
    with pytest.raises(InputError, match=r"'Male' is not a bool or integer column .* it is string in .*b\.parquet"):
        IMAGES.open(make_data(tmp_path, attributes="columns"))
    write("b.parquet", image=pictures[1:2], text=["x"])
    with pytest.raises(InputError, match=r"'Male' .* it is lacking in .*b\.parquet"):
        IMAGES.open(make_data(tmp_path, attributes="columns"))


def test_attributes_that_the_first_file_lacks(make_data, write, tmp_path, pictures):
    write("b.parquet", image=pictures[1:3], q=[0, 1], s=[True, False], label=[3, 4])
    write("a.parquet", image=pictures[:1], q=[1], s=pa.nulls(1))
    source = IMAGES.open(make_data(tmp_path, attributes="columns"))
    assert [a for _, _, a in source.read(source.list())] == [{"q": 1, "s": None}, {"q": -1, "s": 1}, {"q": 1, "s": -1}]
    assert IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=("s",))).attribute_names == ("s",)
    for columns, there in (({}, "lacking"), ({"s": ["yes"]}, "string")):
        write("a.parquet", image=pictures[:1], q=[1], **columns)
        for names in (None, ("s",)):
            with pytest.raises(InputError, match=rf"'s' is not a bool.* it is {there} in .*a\.parquet"):
                IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=names))
        assert IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=("q",))).attribute_names == ("q",)
    with pytest.raises(InputError, match=r"has no column 'S'; did you mean 's'"):
        IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=("S",)))


def test_accents_of_the_image_and_key_columns(make_data, write, tmp_path, pictures):
    columns = {"a\u0300": pictures[:2], "cle\u0301": ["p", "q"]}
    write("a.parquet", **columns)
    source = IMAGES.open(make_data(tmp_path, image_column="\u00e0", key_column="cl\u00e9"))
    assert keys_and_payloads(source) == {"p": (pictures[0], None), "q": (pictures[1], None)}


def test_accents_of_an_attribute(make_data, write, tmp_path, pictures):
    columns = {"image": pictures[:2], "fro\u0308h": [True, False]}  # as a keyword Python would compose it
    write("a.parquet", **columns)
    for names in (None, ("fr\u00f6h",), ("fro\u0308h",)):
        source = IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=names))
        assert [a for _, _, a in source.read(source.list())] == [{"fr\u00f6h": 1}, {"fr\u00f6h": -1}]


@pytest.mark.parametrize("ids", [None, pa.nulls(1), pa.array([None], pa.string())])
def test_keys_of_several_kinds_are_told(make_data, write, tmp_path, pictures, ids):
    write("a.parquet", image=with_paths(pictures[:2], ["x.png", "y.png"]), image_id=["p", "q"])
    write("b.parquet", image=with_paths(pictures[2:3], ["z.png"]), **({} if ids is None else {"image_id": ids}))
    source = IMAGES.open(make_data(tmp_path))
    last = "z.png" if ids is None or pa.types.is_null(ids.type) else "b.parquet#0"
    assert source.list()["key"].to_pylist() == ["p", "q", last]
    kind = "image.path of 1 rows" if last == "z.png" else "FILE#ROW of 1 rows (FILE#ROW in b.parquet)"
    assert source.notes[0].endswith(f"several kinds: image_id of 2 rows, {kind}; data.key_column sets one")


def test_lists_of_images_are_named(make_data, write, tmp_path, pictures):
    write("a.parquet", image=pa.array([[p] for p in pictures[:2]]), thumb=pictures[:2])
    with pytest.raises(InputError, match=r"'image' is list.* not an image; set data\.image_column .*: thumb"):
        IMAGES.open(make_data(tmp_path))


def test_endings_metadata_and_partitions(make_data, write, tmp_path, pictures):
    for i, name in enumerate(["split=train/a.parquet", "split=test/b.parq", "c.pq", "D.PARQUET"]):
        write(name, image=pictures[2 * i : 2 * i + 2])
    write("_temporary/0/x.parquet", image=pictures)
    for name in ("_metadata", "_SUCCESS", ".c.parquet.crc", "readme.md"):
        (tmp_path / name).write_bytes(b"x")
    source = IMAGES.open(make_data(tmp_path))
    found = keys_and_payloads(source)
    assert sorted(p for p, _ in found.values()) == sorted(pictures)
    assert list(found)[:2] == ["D.PARQUET#0", "D.PARQUET#1"]
    assert source.passed_over == {
        "no extension": 2,
        ".md": 1,
        "hidden (the name begins with a dot)": 1,
        "folders _temporary": 1,
    }
    assert len(keys_and_payloads(IMAGES.open(make_data(tmp_path / "c.pq")))) == 2
    fs = fsspec.filesystem("memory")
    try:
        fs.put(str(tmp_path), "/parts", recursive=True)
        store = IMAGES.open(make_data("memory://parts"))
        assert keys_and_payloads(store) == found
        assert store.passed_over == source.passed_over
    finally:
        fs.rm("/parts", recursive=True)


def test_pointers_in_place_of_files(make_data, tmp_path):
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=r"a\.parquet: a Git LFS pointer and not the data: run `git lfs pull`"):
        IMAGES.open(make_data(tmp_path))
    (tmp_path / "a.parquet").write_text("/annex/objects/SHA256E-s1--0.parquet\n")
    with pytest.raises(InputError, match="git annex get"):
        IMAGES.open(make_data(tmp_path))
