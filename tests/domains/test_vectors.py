"""Rows of numbers: read alike from every layout, bad ones set aside with a reason, standardised and back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.config import Config
from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.domains.prepare import plan, prepare_unit
from ldsaug_ray.domains.vectors import VECTORS
from ldsaug_ray.domains.vectors.settings import VectorsData
from ldsaug_ray.errors import ConfigError, InputError

NAMES = ["mass", "length", "width"]


def rows(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32) * [1, 10, 0.1] + [5, 0, -2]


def settings(place: Path | str, **given: Any) -> VectorsData:
    return VectorsData.model_validate({"source": str(place), "train": 0.75, "test": 0.25, "part_rows": 16, **given})


def prepared(data: VectorsData) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, Any], dict[str, int]]:
    """Rows and reasons by key, facts, and the code of the one label."""
    source = VECTORS.open(data)
    work = plan(VECTORS, source, data, 0)
    units = [prepare_unit(*pickle.loads(pickle.dumps((VECTORS, source, unit, data)))) for unit in work.units]
    reasons = {r["key"]: r["reason"] for t in (work.quarantine, *(u.quarantine for u in units)) for r in t.to_pylist()}
    kept: dict[str, np.ndarray] = {}
    labels: dict[str, int] = {}
    for table in (t for u in units for t in (u.train, u.test) if len(t)):
        kept.update(zip(table["key"].to_pylist(), VECTORS.unpack(table), strict=True))
        if "attributes" in table.column_names:
            values = [next(iter(a.values())) for a in table["attributes"].to_pylist()]
            labels.update(zip(table["key"].to_pylist(), values, strict=True))
    training = (VECTORS.unpack(u.train) for u in units if len(u.train))
    return kept, reasons, VECTORS.learn(training, source, data), labels


def named(x: np.ndarray) -> pa.Table:
    return pa.table({name: x[:, k] for k, name in enumerate(NAMES)})


def test_every_layout_gives_the_same_rows(tmp_path: Path) -> None:
    x = rows().astype(np.float32)
    lists = pa.table({"z": [row.tolist() for row in x], "note": ["a"] * len(x)})
    pq.write_table(lists, tmp_path / "lists.parquet", row_group_size=7)
    pq.write_table(named(x), tmp_path / "named.parquet", row_group_size=9)
    pacsv.write_csv(named(x), tmp_path / "comma.csv")
    (tmp_path / "semicolon.csv").write_text(
        "mass;length;width\n" + "".join(";".join(map(repr, r)) + "\n" for r in x.astype(float).tolist())
    )
    np.save(tmp_path / "x.npy", x)
    for name in ("lists.parquet", "named.parquet", "comma.csv", "semicolon.csv", "x.npy"):
        kept, reasons, facts, _ = prepared(settings(tmp_path / name))
        assert not reasons
        assert facts["listed"] == (name in ("lists.parquet", "x.npy"))
        assert sorted(kept) == sorted(f"{name}#{k}" for k in range(40))
        for key, row in kept.items():
            np.testing.assert_allclose(row, x[int(key.partition("#")[2])], rtol=1e-6)


def test_bad_rows_are_set_aside_with_a_reason(tmp_path: Path) -> None:
    lines = [",".join(map(str, row)) for row in rows().tolist()]
    lines[3] = "1,nan,2"
    lines[8] = "1,2,inf"
    lines[11] = "1,two,3"
    lines[20] = "1,,3"
    lines[30] = "1,2,3,4"
    lines[31] = "1e60,2,3"
    (tmp_path / "x.csv").write_text("\n".join([",".join(NAMES), *lines]) + "\n")
    kept, reasons, _, _ = prepared(settings(tmp_path / "x.csv"))
    assert sorted(reasons.values()) == [
        "has 4 cells, the header 3",
        "length is NaN",
        "length is empty",
        "length is no number: 'two'",
        "mass is beyond float32",
        "width is infinite",
    ]
    assert len(kept) + len(reasons) == 40
    assert reasons["x.csv#line-32"] == "has 4 cells, the header 3"  # the header is line 1


def test_lists_of_another_length_and_null(tmp_path: Path) -> None:
    values: list[Any] = [row.tolist() for row in rows()]
    values[4], values[7], values[9] = [1.0, 2.0], None, [1.0, float("nan"), 2.0]
    pq.write_table(pa.table({"z": values}), tmp_path / "x.parquet")
    kept, reasons, _, _ = prepared(settings(tmp_path / "x.parquet"))
    assert reasons == {
        "x.parquet#4": "z has 2 values, others 3",
        "x.parquet#7": "z is empty",
        "x.parquet#9": "value 1 of z is NaN",
    }
    assert len(kept) == 37


def test_labels_are_coded_in_their_order_and_are_no_values(tmp_path: Path) -> None:
    table = named(rows()).append_column("grade", pa.array([[10, 9, 3, None][k % 4] for k in range(40)]))
    pq.write_table(table, tmp_path / "x.parquet")
    given = {"attributes": "columns", "attribute_names": ["grade"]}
    kept, reasons, facts, labels = prepared(settings(tmp_path / "x.parquet", **given))
    assert facts["columns"] == NAMES
    assert facts["labels"] == {"grade": ["3", "9", "10"]}
    assert {int(k.partition("#")[2]) % 4: code for k, code in labels.items()} == {0: 2, 1: 1, 2: 0}
    assert len(reasons) == 10
    assert len(kept) == 30


def test_mean_and_spread_are_numpys_at_any_offset(tmp_path: Path) -> None:
    x = rows(200) + np.array([1000.0, 0, 0])
    x = np.column_stack([x, np.full(200, 3.0), x[:, 1]]).astype(np.float32)
    names = [*NAMES, "constant", "again"]
    pq.write_table(pa.table({n: x[:, k] for k, n in enumerate(names)}), tmp_path / "x.parquet")
    data = settings(tmp_path / "x.parquet")
    source = VECTORS.open(data)
    facts = VECTORS.learn(iter([x[:70], x[70:]]), source, data)
    np.testing.assert_allclose(facts["mean"], x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(facts["spread"], x.astype(np.float64).std(0), rtol=1e-9)
    assert [note.partition(";")[0] for note in facts["notes"]] == [
        "constant over all training rows: constant",
        "columns that are the same: again as length",
    ]


def test_identity_standardises_and_undoes_it() -> None:
    from ldsaug_ray.models import CODECS, decode_batch, encode_batch

    x = rows(100).astype(np.float32)
    x[:, 2] = 7
    kind = CODECS.get("identity")
    given = {"mean": x.mean(0).tolist(), "spread": [*x[:, :2].std(0).tolist(), 0.0], "listed": False}
    model = kind.build(kind.settings(kind="identity"), given, 0)
    z = encode_batch(model, x, 32)
    np.testing.assert_allclose(z[:, :2], (x[:, :2] - x[:, :2].mean(0)) / x[:, :2].std(0), atol=1e-5)
    assert not z[:, 2].any()
    np.testing.assert_allclose(decode_batch(model, z, 32), x, atol=1e-4)
    plain = kind.build(kind.settings(kind="identity"), {**given, "listed": True}, 0)
    np.testing.assert_array_equal(encode_batch(plain, x, 32), x)


def test_what_users_get_can_be_read_again() -> None:
    x = rows().astype(np.float32)
    for listed in (True, False):
        column = VECTORS.export(x, [""] * len(x), {"listed": listed, "columns": NAMES})
        np.testing.assert_array_equal(VECTORS.unpack(pa.table({"row": column})), x)
    assert column.type.names == NAMES
    np.testing.assert_array_equal(VECTORS.unpack(pa.table({"row": VECTORS.pack(x)})), x)


@pytest.mark.parametrize(
    ("name", "content", "given", "words"),
    [
        ("x.csv", "a,b\n1,2\n", {"columns": ["c"]}, "data.columns: .* has no column 'c'; there are: a, b"),
        ("x.csv", "a,b\nx,y\nz,w\n", {}, "no column of numbers.*its columns: a, b"),
        ("x.csv", "a,b\n1,2\n", {"attributes": "columns"}, "name the columns with labels in data.attribute_names"),
        ("x.csv", "a,b\n1,2\n", {"key_column": "k"}, "data.key_column: .* has no column 'k'"),
        ("x.npy", "not an array", {}, "x.npy: not a readable npy file"),
        ("x.parquet", "not Parquet", {}, "x.parquet: not a readable parquet file"),
        ("x.txt", "1,2", {}, "no Parquet, CSV or .npy file there"),
        ("x.csv", "a,a\n1,2\n3,4\n", {"columns": ["a"]}, "several columns are called 'a'"),
        ("x.csv", "", {}, r"x\.csv: holds no rows"),
        ("x.csv", "a,b\n", {}, r"x\.csv: holds no rows"),
        ("x.csv", "7,0.27\n6,0.3\n", {}, r"x\.csv: not a readable csv file \(its first line holds numbers"),
    ],
)
def test_files_that_cannot_be_used_are_errors(
    tmp_path: Path, name: str, content: str, given: dict[str, Any], words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        VECTORS.open(settings(tmp_path, **given)).list()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{}, []], object), "not a readable npy file .*Python objects"),
        (np.zeros(9), r"float64\[9\]; numbers \[rows, values\] are needed"),
        (np.array([["1", "2"]]), r"<U1\[1, 2\]; numbers"),
        (np.zeros((3, 2), complex), r"complex128\[3, 2\]; numbers"),
    ],
)
def test_arrays_that_cannot_be_used_are_errors(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=r"x\.npy: " + words):
        VECTORS.open(settings(tmp_path)).list()


def test_arrays_of_another_width_are_set_aside(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows())
    np.save(tmp_path / "b.npy", rows(5)[:, :2])
    kept, reasons, _, _ = prepared(settings(tmp_path))
    assert (len(kept), set(reasons.values())) == (40, {"vector has 2 values, others 3"})


def test_a_damaged_page_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    numbers = np.random.default_rng(0).normal(size=4000).round(1)  # or there is nothing to compress, and to break
    pq.write_table(pa.table({"a": numbers, "b": numbers}), file, compression="gzip", use_dictionary=False)
    data = bytearray(file.read_bytes())
    data[1000:3000] = bytes(2000)
    file.write_bytes(bytes(data))
    source = VECTORS.open(settings(tmp_path))
    with pytest.raises(InputError, match=r"x\.parquet: not a readable parquet file"):
        list(source.read(source.list()))


def test_columns_may_be_called_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("0,1\n5,6\n7,8\n")  # as pandas names those that have no names
    assert len(VECTORS.open(settings(tmp_path)).list()) == 2


def test_settings_follow_the_domain(tmp_path: Path) -> None:
    tree = {"run_dir": str(tmp_path), "domain": "vectors", "data": {"source": "x.npy"}}
    config = build_config(tree, [])
    assert (config.vae.kind, config.train.steps, config.train.horizontal_flip) == ("identity", 0, False)
    assert config.evaluate.detection.corruptions == ()
    assert build_config(config.dump(), []) == config
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert type(again) is type(config)
    assert isinstance(again, Config)
    for override, words in (
        ("data.resolution=32", "unknown setting data.resolution"),
        ("vae.kind=stylegan2", "stylegan2 is of the domain images; possible with domain: vectors: identity, mlp"),
        ("domain=tables", "unknown domain 'tables'; possible: audio, images"),
        ("data.format=tar", "data.format must be 'auto', 'parquet', 'csv' or 'npy'"),
        ("data.train=0", "train: 0 leaves nothing to train on"),
        ("data.train=1.0", "is more than all rows"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_config(tree, [override])


def test_words_are_the_domains() -> None:
    assert VECTORS.words("No image: 3 test images, Images; image_id, images/part.parquet, my.image") == (
        "No row: 3 test rows, Rows; image_id, images/part.parquet, my.image"
    )
    same = "2 images"
    assert DOMAINS.get("images").words(same) == same
