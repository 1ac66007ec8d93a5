"""Labels with many values: which columns and members have them, how they are stored, and what cannot be one."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.config import Data
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.images.stored import png_bytes
from ldsaug_ray.domains.tables import item_table
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.latents import is_categorical, label_codes

PNG = png_bytes(np.zeros((16, 16, 3), np.uint8))


def parquet(folder: Path, features: dict | None = None, **columns: list) -> str:
    n = len(next(iter(columns.values())))
    table = pa.table({"image": pa.array([PNG] * n, pa.binary()), **{k: pa.array(v) for k, v in columns.items()}})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "part.parquet")
    return str(folder)


def opened(source: str, *names: str):
    return IMAGES.open(Data(source=source, attributes="columns", attribute_names=names or None))


def values(source) -> list:
    return [found for _, _, found in source.read(source.list())]


def test_a_named_integer_column_is_one_label(tmp_path: Path) -> None:
    source = opened(parquet(tmp_path, digit=[7, -1, 0, None], old=[True, False, True, False]), "digit", "old")
    assert source.categorical == {"digit"}
    assert values(source) == [
        {"digit": 7, "old": 1},
        {"digit": None, "old": -1},
        {"digit": 0, "old": 1},
        {"digit": None, "old": -1},
    ]


def test_class_labels_are_taken_where_nothing_is_named_and_nothing_is_binary(tmp_path: Path) -> None:
    features = {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}, "year": {"_type": "Value"}}
    source = opened(parquet(tmp_path, features, label=[2, 1, 0], year=[1990, 1991, 1992]))
    assert (source.attribute_names, source.categorical) == (("label",), {"label"})


def test_beside_a_binary_column_a_label_waits_to_be_named(tmp_path: Path) -> None:
    features = {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    source = opened(parquet(tmp_path, features, label=[2, 1, 0], old=[True, False, True]))
    assert (source.attribute_names, source.categorical) == (("old",), frozenset())


def test_what_is_no_label_is_told(tmp_path: Path) -> None:
    for wrong in ([-5, 3], [0, 10_000]):
        with pytest.raises(InputError, match=rf"values from {wrong[0]} to {wrong[1]}; .* a label 0 to 9999 or -1"):
            opened(parquet(tmp_path, number=wrong), "number")


def test_a_member_of_a_tar_may_hold_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for n, digit in enumerate([3, 9, -1]):
            for name, content in ((f"{n}.png", PNG), (f"{n}.json", json.dumps({"digit": digit}).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    source = opened(str(tmp_path / "a.tar"), "digit")
    assert source.categorical == {"digit"}
    assert values(source) == [{"digit": 3}, {"digit": 9}, None]


def test_digits_have_one_where_it_is_named() -> None:
    source = opened("sklearn:digits", "digit", "even")
    assert source.categorical == {"digit"}
    some = next(iter(source.read(source.list().slice(3, 1))))[2]
    assert some == {"digit": 3, "even": -1}  # scikit-learn's first ten are 0 to 9
    assert opened("sklearn:digits").attribute_names == ("even", "label_ge_5", "closed_loop")


def test_they_are_stored_beside_binary_ones() -> None:
    values = [{"digit": 0, "old": -1}, {"digit": 9, "old": 1}, None]
    images = np.zeros((3, 16, 16, 3), np.uint8)
    table = item_table("image", IMAGES.pack(images), list("abc"), ["train"] * 3, values, ("digit", "old"), {"digit"})
    assert table.schema.field("attributes").type == pa.struct([("digit", pa.int32()), ("old", pa.int8())])
    digit, old = (pa.compute.struct_field(table["attributes"], name) for name in ("digit", "old"))
    assert (is_categorical(digit), is_categorical(old)) == (True, False)
    assert label_codes(digit).tolist() == [1, 10, 0]
    assert label_codes(old).tolist() == [-1, 1, 0]
