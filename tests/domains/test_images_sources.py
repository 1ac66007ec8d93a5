"""Sources: what is found, in which order, and what is said when it cannot be used."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.domains.images import IMAGES, LISTING, decode_image
from ldsaug_ray.errors import InputError


def keys(source) -> list[str]:
    table = source.list()
    assert table.schema.equals(LISTING)
    order = list(zip(table["file"].to_pylist(), table["index"].to_pylist(), strict=True))
    assert order == sorted(order)
    return table["key"].to_pylist()


def read_all(source) -> list:
    """Every reading, through a pickled copy, as a Ray worker has it; the order asked for must not matter."""
    table, copy = source.list(), pickle.loads(pickle.dumps(source))
    readings = list(copy.read(table))
    backwards = list(copy.read(table.take(list(range(len(table)))[::-1])))
    assert backwards == readings[::-1]
    return readings


def write_parquet(path, columns, **options) -> None:
    pq.write_table(pa.table(columns), path, **options)


def images(payloads, paths=None):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array(
        [{"bytes": b, "path": p} for b, p in zip(payloads, paths or [None] * len(payloads), strict=True)], kind
    )


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# --- folders


def test_folder(make_data, image_folder):
    source = IMAGES.open(make_data(image_folder))
    assert keys(source) == [*(f"{i}.png" for i in range(8)), "8.JPG", "more/9.webp"]
    for payload, reason, attributes in read_all(source):
        assert reason is None
        assert attributes is None
        decode_image(payload, resolution=16)
    assert source.list()["length"][0].as_py() == (image_folder / "0.png").stat().st_size
    assert keys(pickle.loads(pickle.dumps(source))) == keys(source)


def test_folder_file_that_vanishes_and_dead_link_are_reasons(make_data, image_folder):
    (image_folder / "dead.png").symlink_to("nowhere.png")
    source = IMAGES.open(make_data(image_folder))
    table = source.list()
    (image_folder / "0.png").unlink()
    readings = dict(zip(table["key"].to_pylist(), source.read(table), strict=True))
    assert readings["0.png"] == (None, "the file is gone", None)
    assert readings["dead.png"] == (None, "the file is gone", None)
    assert readings["1.png"][0]


def test_errors_before_any_work(make_data, tmp_path, image_folder):
    with pytest.raises(InputError, match="there is no such file or folder"):
        IMAGES.open(make_data(tmp_path / "nothing"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="the folder is empty"):
        IMAGES.open(make_data(empty))
    for name in ("a.txt", "b.txt", "c"):
        (empty / name).write_text("x")
    with pytest.raises(InputError, match=r"3 files \(\.txt ×2, no extension ×1\), none of \.jpg, \.jpeg,"):
        IMAGES.open(make_data(empty))
    with pytest.raises(InputError, match=r"none of \.tar;"):
        IMAGES.open(make_data(image_folder, format="webdataset"))
    (image_folder / "part.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"10 image files, 1 Parquet file: set data\.format to folder or parquet"):
        IMAGES.open(make_data(image_folder))
    assert len(keys(IMAGES.open(make_data(image_folder, format="folder")))) == 10
    with pytest.raises(InputError, match="not a readable Parquet file"):
        IMAGES.open(make_data(image_folder, format="parquet"))
    with pytest.raises(InputError, match="give a folder of images"):
        IMAGES.open(make_data(image_folder / "0.png"))
    with pytest.raises(InputError, match="needs the folder it lies in"):
        IMAGES.open(make_data(image_folder / "0.png", format="folder"))
    with pytest.raises(InputError, match="image files have no columns"):
        IMAGES.open(make_data(image_folder, format="folder", attributes="columns"))
    with pytest.raises(InputError, match="sklearn:digits"):
        IMAGES.open(make_data("sklearn:faces"))


def test_fsspec_only_uri(make_data, encode):
    fs = fsspec.filesystem("memory")
    try:
        for i in range(40):
            fs.pipe(f"/ldsaug/faces/{i:02d}.png", encode(np.full((16, 16, 3), i, np.uint8)))
        source = IMAGES.open(make_data("memory://ldsaug/faces"))
        assert keys(source) == [f"{i:02d}.png" for i in range(40)]
        values = [decode_image(p, resolution=16)[0, 0, 0] for p, _, _ in read_all(source)]
        assert values == list(range(40))
        with io.BytesIO() as buffer, tarfile.open(fileobj=buffer, mode="w") as tar:
            for i in range(3):
                info = tarfile.TarInfo(f"{i}.png")
                data = encode(np.full((16, 16, 3), i, np.uint8))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            tar.close()
            fs.pipe("/ldsaug/tars/a.tar", buffer.getvalue())
        source = IMAGES.open(make_data("memory://ldsaug/tars"))
        assert keys(source) == ["0", "1", "2"]
        assert [decode_image(p, resolution=16)[0, 0, 0] for p, _, _ in read_all(source)] == [0, 1, 2]
    finally:
        fs.rm("/ldsaug", recursive=True)


# --- Parquet


def test_parquet_huggingface_layout(make_data, encode, tmp_path):
    payloads = [encode(np.full((16, 16, 3), i, np.uint8)) for i in range(10)]
    paths = [f"{i}.png" for i in range(10)]
    columns = {"image": images(payloads, paths), "Male": pa.array([1, -1] * 5, pa.int8())}
    columns |= {"Old": pa.array([True, None] * 5), "partition": pa.array([0] * 10, pa.int8())}
    columns |= {"year": pa.array(range(10)), "age": pa.array([0.5] * 10)}
    write_parquet(tmp_path / "b.parquet", columns, row_group_size=3)
    source = IMAGES.open(make_data(tmp_path / "b.parquet", attributes="columns"))
    assert keys(source) == paths
    assert source.attribute_names == ("Male", "Old")
    readings = read_all(source)
    assert [r[0] for r in readings] == payloads
    assert readings[0][2] == {"Male": 1, "Old": 1}
    assert readings[1][2] == {"Male": -1, "Old": None}
    few = source.list().take([1, 2, 8])
    assert [r[0] for r in source.read(few)] == [payloads[i] for i in (1, 2, 8)]
    assert all(r[2] is None for r in IMAGES.open(make_data(tmp_path / "b.parquet")).read(few))


def test_parquet_attributes_without_statistics(make_data, encode, tmp_path):
    columns = {"image": [encode()] * 2, "Male": pa.array([0, 1], pa.int8()), "year": [1999, 2000]}
    write_parquet(tmp_path / "a.parquet", columns, write_statistics=False)
    assert IMAGES.open(make_data(tmp_path, attributes="columns")).attribute_names == ("Male",)


def test_parquet_keys(make_data, encode, tmp_path):
    one = encode()

    def keys_of(columns, **settings):
        write_parquet(tmp_path / "a.parquet", columns)
        return keys(IMAGES.open(make_data(tmp_path, **settings)))

    assert keys_of({"image": [one, one]}) == ["a.parquet#0", "a.parquet#1"]
    assert keys_of({"image": images([one, one], ["image.png"] * 2)}) == ["a.parquet#0", "a.parquet#1"]
    assert keys_of({"image": images([one, one], ["x.png", None])}) == ["a.parquet#0", "a.parquet#1"]
    assert keys_of({"image": images([one, one], ["x", "y"]), "image_id": ["p", None]}) == ["p", "a.parquet#1"]
    assert keys_of({"image": [one, one], "n": [7, 8]}, key_column="n") == ["7", "8"]
    assert keys(IMAGES.open(make_data(tmp_path / "a.parquet"))) == ["a.parquet#0", "a.parquet#1"]


def test_parquet_reasons(make_data, encode, tmp_path):
    (tmp_path / "data" / "img").mkdir(parents=True)
    (tmp_path / "data" / "img" / "0.png").write_bytes(encode())
    (tmp_path / "secret.png").write_bytes(encode())
    paths = ["img/0.png", "img/1.png", "../secret.png", str(tmp_path / "secret.png"), None]
    rows = images([None] * 5, paths)
    write_parquet(tmp_path / "data" / "a.parquet", {"image": pa.concat_arrays([rows, pa.nulls(1, rows.type)])})
    for place in ("data", "data/a.parquet"):
        source = IMAGES.open(make_data(tmp_path / place, format="parquet"))
        readings = read_all(source)
        assert readings[0][0] == encode()
        said = [r[1] for r in readings[1:]]
        assert said[0].endswith("img/1.png: the file is gone")
        assert "outside the source" in said[1]
        assert "outside the source" in said[2]
        assert said[3:] == ["the image is null"] * 2
    table = source.list()
    write_parquet(tmp_path / "data" / "a.parquet", {"image": rows[:2]})
    assert [r[1] for r in source.read(table)][2] == "the row is gone: the file has 2 rows"
    (tmp_path / "data" / "a.parquet").unlink()
    assert {r[1] for r in source.read(table)} == {"the file is gone"}


def test_parquet_settings_are_checked(make_data, encode, tmp_path):
    write_parquet(tmp_path / "a.parquet", {"jpg": [encode()] * 2, "Male": [0, 1], "age": [30, 40], "name": ["a", "b"]})

    def error(**settings) -> str:
        with pytest.raises(InputError) as caught:
            IMAGES.open(make_data(tmp_path, **settings))
        return str(caught.value)

    assert "can hold images: jpg. Its columns: jpg, Male, age, name" in error()
    assert "'name' is string, not an image" in error(image_column="name")
    assert "did you mean 'name'" in error(image_column="jpg", key_column="nam")
    ask = {"image_column": "jpg", "attributes": "columns"}
    assert "did you mean 'Male'" in error(**ask, attribute_names=("male",))
    assert "is string, not bool" in error(**ask, attribute_names=("name",))
    write_parquet(tmp_path / "b.parquet", {"png": [encode()]})
    assert "b.parquet" in error(image_column="jpg")
    write_parquet(tmp_path / "b.parquet", {"jpg": [encode()], "age": [3]})
    assert "in all of its Parquet files" in error(**ask)
    (tmp_path / "a.parquet").unlink()
    assert "no bool column and no integer column" in error(**ask)


# --- WebDataset


def test_webdataset(make_data, encode, tmp_path):
    a, b = encode(), encode(None, "JPEG")
    label = json.dumps({"Male": 1, "Old": False, "year": 1999, "name": "x"}).encode()
    members = {"./p/0.jpg": b, "p/0.json": label, "1.x.PNG": a, "1.cls": b"3", "2.seg.png": b"mask", "2.png": a}
    write_tar(tmp_path / "s-01.tar", members | {"dir/._3.png": b"", "notes.txt": b"x"})
    write_tar(tmp_path / "s-00.tar", {"9.png": a, "9.json": label, "8.json": b"{broken", "8.png": a, "7.png": a})
    source = IMAGES.open(make_data(tmp_path, attributes="columns"))
    assert source.attribute_names == ("Male", "Old")
    assert keys(source) == ["9", "8", "7", "p/0", "1", "2"]
    readings = read_all(source)
    assert [r[0] for r in readings] == [a, a, a, b, a, a]
    assert [r[2] for r in readings] == [{"Male": 1, "Old": -1}, None, None, {"Male": 1, "Old": -1}, None, None]
    with pytest.raises(InputError, match="did you mean 'Male'"):
        IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=("male",)))
    for pattern in ("s-*.tar", "s-{00..01}.tar", "s-{00,01}.tar"):
        assert keys(IMAGES.open(make_data(tmp_path / pattern))) == keys(source)
    with pytest.raises(InputError, match=r"there is no file 's-02\.tar'"):
        IMAGES.open(make_data(tmp_path / "s-{00..02}.tar"))


def test_truncated_tar_keeps_what_is_whole(make_data, encode, tmp_path):
    one = encode()
    path = tmp_path / "a.tar"
    write_tar(path, {f"{i}.png": one for i in range(3)})
    whole = path.read_bytes()
    table = IMAGES.open(make_data(path)).list()
    offsets = table["index"].to_pylist()
    for cut in (offsets[2] + 10, offsets[2] - 100):  # within the data, within the header
        path.write_bytes(whole[:cut])
        source = IMAGES.open(make_data(path))
        readings = list(source.read(source.list()))
        assert [r[0] for r in readings] == [one, one, None]
        assert "tar" in readings[2][1]
    path.write_bytes(whole[: offsets[2] - 512])  # a clean end without the end marker is fine
    assert keys(IMAGES.open(make_data(path))) == ["0", "1"]
    path.write_bytes(whole[: offsets[0] + 10])
    with pytest.raises(InputError, match=r"a\.tar: the tar is truncated or damaged"):
        IMAGES.open(make_data(path)).list()


def test_damaged_tar_headers_are_not_taken_for_the_end(make_data, encode, tmp_path):
    one = encode()
    path = tmp_path / "a.tar"
    write_tar(path, {f"{i}.png": one for i in range(3)})
    data = bytearray(path.read_bytes())
    second = IMAGES.open(make_data(path)).list()["index"][1].as_py()
    data[second - 512 : second - 400] = b"?" * 112
    path.write_bytes(data)
    source = IMAGES.open(make_data(path))
    assert keys(source) == ["0", f"a.tar#{second - 512}"]
    assert "damaged tar" in list(source.read(source.list()))[1][1]


def test_no_tar(make_data, encode, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"hello" * 300)
    with pytest.raises(InputError, match="not a tar file"):
        IMAGES.open(make_data(path)).list()
    write_tar(path, {"a.txt": b"x"})
    with pytest.raises(InputError, match="no tar member has an image's extension"):
        IMAGES.open(make_data(path)).list()


# --- digits and the real data


def test_digits(make_data):
    from sklearn.datasets import load_digits

    source = IMAGES.open(make_data("sklearn:digits", attributes="columns"))
    assert keys(source)[:2] == ["digit-0000", "digit-0001"]
    few = source.list().slice(0, 20)
    digits = load_digits()
    for i, (payload, _, attributes) in enumerate(pickle.loads(pickle.dumps(source)).read(few)):
        pixels = decode_image(payload, resolution=8)
        np.testing.assert_array_equal(pixels[..., 1], np.rint(digits.images[i] * 255 / 16))
        label = digits.target[i]
        assert attributes == {
            "even": 1 if label % 2 == 0 else -1,
            "label_ge_5": 1 if label >= 5 else -1,
            "closed_loop": 1 if label in (0, 6, 8, 9) else -1,
        }
    assert len(source.list()) == 1797
    with pytest.raises(InputError, match="did you mean 'even'"):
        IMAGES.open(make_data("sklearn:digits", attributes="columns", attribute_names=("evn",)))


def test_real_folder(make_data, real_data):
    source = IMAGES.open(make_data(real_data / "faces256"))
    assert len(set(keys(source))) == 3000


def test_real_parquet(make_data, real_data):
    source = IMAGES.open(make_data(real_data / "celeba-10k", attributes="columns"))
    assert len(source.attribute_names) == 40
    listed = keys(source)
    assert listed == [f"{i:06d}.jpg" for i in range(1, 10_001)]
    males = [r[2]["Male"] == 1 for r in source.read(source.list())]
    assert round(100 * np.mean(males)) == 42
