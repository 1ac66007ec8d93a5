"""Plan and units: every listed image ends in exactly one place."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.domains.images import (
    IMAGES,
    QUARANTINE,
    UNIT,
    image_array,
    load_attributes,
    plan,
    prepare_unit,
)
from ldsaug_ray.domains.tables import item_table
from ldsaug_ray.errors import InputError


def run(data, seed=0):
    """(plan, train, test, quarantine) of the whole source, each unit through a pickle."""
    source, table = IMAGES.open(data), load_attributes(data)
    work = plan(IMAGES, source, data, seed, table)
    done = []
    for unit in work.units:
        assert unit.schema.equals(UNIT)
        done.append(prepare_unit(*pickle.loads(pickle.dumps((IMAGES, source, unit, data, table)))))
        assert len(unit) == len(done[-1].train) + len(done[-1].test) + len(done[-1].quarantine)
    train = pa.concat_tables([u.train for u in done])
    test = pa.concat_tables([u.test for u in done])
    quarantine = pa.concat_tables([work.quarantine, *(u.quarantine for u in done)])
    assert quarantine.schema.equals(QUARANTINE)
    assert train.schema.equals(test.schema)
    names = work.attribute_names
    stored = pa.binary(data.resolution**2 * 3)
    kinds = {"key": pa.string(), "split": pa.string(), "image": stored}
    if names is not None:
        kinds["attributes"] = pa.struct([(n, pa.int8()) for n in names])
    assert train.schema.equals(pa.schema([pa.field(n, t, nullable=False) for n, t in kinds.items()]))
    assert work.n_listed == len(train) + len(test) + len(quarantine) + work.n_dropped_unused
    return work, train, test, quarantine


@pytest.fixture
def bad_folder(image_folder, encode):
    """The ten sound images and five that are not."""
    (image_folder / "cut.jpg").write_bytes(encode(None, "JPEG")[:500])
    (image_folder / "empty.png").write_bytes(b"")
    (image_folder / "small.png").write_bytes(encode(np.zeros((8, 30, 3), np.uint8)))
    (image_folder / "text.png").write_text("hello")
    (image_folder / "dead.png").symlink_to("nowhere")
    return image_folder


def test_accounting_with_bad_images(make_data, bad_folder):
    _, train, test, quarantine = run(make_data(bad_folder, train=12, test=3))
    assert len(train) + len(test) == 10
    reasons = dict(zip(quarantine["key"].to_pylist(), quarantine["reason"].to_pylist(), strict=True))
    assert reasons == {
        "cut.jpg": "truncated JPEG",
        "empty.png": "empty file",
        "small.png": "smaller than the resolution: 30 x 8 px, not 16; data.upscale=true accepts it",
        "text.png": "not an image (begins with b'hello')",
        "dead.png": "the file is gone",
    }
    for key, pixels in zip(train["key"].to_pylist(), image_array(train), strict=True):
        if key[0] in "01234567":
            assert (pixels == 10 * int(key[0])).all()


def test_units_do_not_change_the_result(make_data, encode, tmp_path):
    for i in range(50):
        (tmp_path / f"{i}.png").write_bytes(encode(np.full((16, 16, 3), i, np.uint8)))
    many = run(make_data(tmp_path, part_rows=16, train=0.6, test=0.2))
    one = run(make_data(tmp_path, train=0.6, test=0.2))
    assert [len(u) for u in many[0].units] == [16, 16, 8]
    assert len(one[0].units) == 1
    assert (one[0].n_train, one[0].n_test, one[0].n_dropped_unused) == (30, 10, 10)
    for a, b in zip(many[1:], one[1:], strict=True):
        assert a.equals(b)
    assert run(make_data(tmp_path, train=0.6, test=0.2), seed=1)[1]["key"] != one[1]["key"]


def test_duplicates_are_quarantined(make_data, encode, tmp_path):
    for name in ("a", "b"):
        columns = {"image": [encode()] * 4, "image_id": [f"{name}0", "same", f"{name}1", f"{name}2"]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    work, train, test, quarantine = run(make_data(tmp_path))
    assert quarantine.to_pylist() == [
        {"key": "same", "reason": "duplicate key (first seen in a.parquet)", "file": "b.parquet"}
    ]
    assert len(set(train["key"].to_pylist() + test["key"].to_pylist())) == 7
    assert work.n_listed == 8


def test_missing_attributes(make_data, image_folder, tmp_path):
    file = tmp_path / "attributes.txt"
    rows = [f"{i}.jpg {(-1) ** i} 1" for i in range(9)]  # 9 is lacking
    file.write_text("\n".join(["9", "Odd Face", *rows]))
    settings = {"attributes": str(file), "train": 8, "test": 2}
    _, train, test, quarantine = run(make_data(image_folder, **settings))
    assert quarantine.to_pylist() == [
        {"key": "more/9.webp", "reason": f"no attributes in {file}", "file": "more/9.webp"}
    ]
    for row in train.to_pylist() + test.to_pylist():
        assert row["attributes"] == {"Odd": (-1) ** int(row["key"][0]), "Face": 1}
    kept = run(make_data(image_folder, **settings, missing_attributes="keep"))
    values = {row["key"]: row["attributes"] for t in kept[1:3] for row in t.to_pylist()}
    assert values["more/9.webp"] == {"Odd": None, "Face": None}
    assert len(values) == 10
    with pytest.raises(InputError, match=r"no attributes for 1 of 10 images \(more/9\.webp\)"):
        run(make_data(image_folder, **settings, missing_attributes="error"))
    file.write_text("1\nMale\nelse.jpg 1\n")
    with pytest.raises(InputError, match=r"no row for any image of .*else\.jpg.*0\.png"):
        run(make_data(image_folder, **settings))


def test_names_with_accents_and_names_without_folders(make_data, encode, tmp_path):
    folder = tmp_path / "faces"
    for name in ("Jose\u0301.png", "A.png", "B.png", "x/0.png", "y/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode())
    file = tmp_path / "attributes.txt"
    file.write_text("4\nMale\nJos\u00e9.png 1\nA.png -1\nB.png 1\n0.png 1\n")
    work, train, test, quarantine = run(make_data(folder, attributes=str(file)))
    assert len(quarantine) == 0
    values = {row["key"]: row["attributes"]["Male"] for row in train.to_pylist() + test.to_pylist()}
    assert values == {"Jose\u0301.png": 1, "A.png": -1, "B.png": 1, "x/0.png": 1, "y/0.png": 1}
    assert len(work.notes) == 2
    assert work.notes[0].startswith("1 images match ")
    assert r"Jose\u0301" in work.notes[0]
    assert work.notes[1].startswith("1 rows of ")


def test_missing_attribute_columns(make_data, encode, tmp_path):
    columns = {"image": [encode()] * 4, "Male": pa.array([1, 0, None, 1], pa.int8())}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    settings = {"attributes": "columns", "train": 4, "test": 0}
    quarantine = run(make_data(tmp_path, **settings))[3]
    assert quarantine["key"].to_pylist() == ["a.parquet#2"]
    train = run(make_data(tmp_path, **settings, missing_attributes="keep"))[1]
    assert [r["attributes"]["Male"] for r in train.to_pylist()] == [1, -1, None, 1]
    with pytest.raises(InputError, match=r"a\.parquet#2"):
        run(make_data(tmp_path, **settings, missing_attributes="error"))


def test_too_few_images(make_data, encode, tmp_path):
    (tmp_path / "a.png").write_bytes(encode())
    with pytest.raises(InputError, match="1 image found"):
        run(make_data(tmp_path))
    (tmp_path / "b.png").write_bytes(encode())
    with pytest.raises(InputError, match=r"data\.train = 3"):
        run(make_data(tmp_path, train=3, test=0))
    assert len(run(make_data(tmp_path, train=2, test=0))[1]) == 2


def test_image_array_is_a_view(gradient):
    pixels = np.stack([gradient(16, 16) + i for i in range(5)]).astype(np.uint8)
    table = item_table("image", IMAGES.pack(pixels), list("abcde"), ["train"] * 5)
    view = image_array(table)
    np.testing.assert_array_equal(view, pixels)
    assert np.shares_memory(view, pixels)
    assert not view.flags.writeable
    np.testing.assert_array_equal(image_array(table.slice(2, 2)), pixels[2:4])
    np.testing.assert_array_equal(image_array(pa.concat_tables([table.slice(3), table.slice(0, 1)])), pixels[[3, 4, 0]])
    assert image_array(table.slice(0, 0)).shape == (0, 16, 16, 3)
    with io.BytesIO() as buffer:
        pq.write_table(table, buffer)
        np.testing.assert_array_equal(image_array(pq.read_table(buffer)), pixels)


def test_real_faces(make_data, real_data):
    data = make_data(real_data / "celeba-10k", resolution=32, train=300, test=100, attributes="columns")
    work, train, test, quarantine = run(data)
    assert (len(train), len(test), len(quarantine), work.n_dropped_unused) == (300, 100, 0, 9600)
    assert 60 < image_array(train).mean() < 180


def test_core_does_not_import_ray():
    import subprocess
    import sys

    code = "import sys, ldsaug_ray.domains.images; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
