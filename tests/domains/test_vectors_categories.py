"""Columns of categories: 1 of K in a row, those of the training rows, words again in what users get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ldsaug_ray import measure, run
from ldsaug_ray.config import Objective
from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains.prepare import plan, prepare_unit
from ldsaug_ray.domains.split import assign_splits
from ldsaug_ray.domains.vectors import VECTORS
from ldsaug_ray.domains.vectors.settings import VectorsData
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models import CODECS

N = 40
KEYS = [f"x.parquet#{k}" for k in range(N)]
SPLITS = assign_splits(KEYS, seed=0, train=0.75, test=0.25, unit="rows")
TRAIN, TEST = (np.flatnonzero(np.equal(SPLITS, split)).tolist() for split in ("train", "test"))


def settings(place: Path, **given: Any) -> VectorsData:
    return VectorsData.model_validate({"source": str(place), "train": 0.75, "test": 0.25, "part_rows": 16, **given})


def table() -> tuple[np.ndarray, list[Any], list[Any]]:
    """mass [N], and two columns of categories."""
    colour: list[Any] = [("red", "white")[k % 2] for k in range(N)]
    size: list[Any] = [(10, 9, 3)[k % 3] for k in range(N)]
    return np.random.default_rng(0).normal(size=N), colour, size


def test_a_row_has_one_of_each_and_unseen_ones_are_set_aside(tmp_path: Path) -> None:
    mass, colour, size = table()
    colour[TEST[0]] = "green"  # in no training row
    mass[TRAIN[0]], colour[TRAIN[0]] = np.nan, "blue"  # in none that can be used
    colour[TEST[1]] = "blue"
    colour[TRAIN[1]], size[TEST[2]] = None, None
    pq.write_table(pa.table({"mass": mass, "colour": colour, "size": size}), tmp_path / "x.parquet")
    data = settings(tmp_path / "x.parquet", categories=["colour", "size"])
    source = VECTORS.open(data)
    work = plan(VECTORS, source, data, 0)
    units = [prepare_unit(VECTORS, source, unit, data) for unit in work.units]
    reasons = {r["key"]: r["reason"] for u in units for r in u.quarantine.to_pylist()}
    assert reasons == {
        KEYS[TEST[0]]: "colour 'green' is in no training row",
        KEYS[TEST[1]]: "colour 'blue' is in no training row",
        KEYS[TRAIN[0]]: "mass is NaN",
        KEYS[TRAIN[1]]: "colour is empty",
        KEYS[TEST[2]]: "size is empty",
    }
    kept = {}
    for part in (t for u in units for t in (u.train, u.test) if len(t)):
        kept.update(zip(part["key"].to_pylist(), VECTORS.unpack(part), strict=True))
    by_hand = {
        KEYS[k]: [mass[k], colour[k] == "red", colour[k] == "white", size[k] == 3, size[k] == 9, size[k] == 10]
        for k in range(N)
        if KEYS[k] not in reasons
    }
    assert kept.keys() == by_hand.keys()
    for key, row in by_hand.items():
        np.testing.assert_array_equal(kept[key], np.array(row, np.float32))
    facts = VECTORS.learn((VECTORS.unpack(u.train) for u in units if len(u.train)), source, data)
    assert facts["categories"] == {"colour": ["red", "white"], "size": ["3", "9", "10"]}
    assert facts["columns"] == ["mass", "colour = red", "colour = white", "size = 3", "size = 9", "size = 10"]


def test_values_that_are_given_count_alone(tmp_path: Path) -> None:
    mass, colour, size = table()
    pq.write_table(pa.table({"mass": mass, "colour": colour, "size": size}), tmp_path / "x.parquet")
    data = settings(tmp_path / "x.parquet", categories={"colour": ["white", "rose"]})
    source = VECTORS.open(data)
    work = plan(VECTORS, source, data, 0)
    units = [prepare_unit(VECTORS, source, unit, data) for unit in work.units]
    reasons = [r["reason"] for u in units for r in u.quarantine.to_pylist()]
    assert reasons == ["colour 'red' is none of data.categories"] * (N // 2)
    rows = np.concatenate([VECTORS.unpack(t) for u in units for t in (u.train, u.test)])
    assert rows[:, 2:].tolist() == [[1, 0]] * (N // 2)  # size, a number, comes before


def test_words_come_back_from_a_file(tmp_path: Path) -> None:
    facts = {"columns": ["mass", "a", "b", "c"], "listed": False, "categories": {"colour": ["red", "white", "rose"]}}
    x = np.array([[1.5, 0, 1, 0], [2.5, 0, 0, 1]], np.float32)
    pq.write_table(pa.table({"row": VECTORS.export(x, (), facts)}), tmp_path / "a.parquet")
    again = pq.read_table(tmp_path / "a.parquet")
    assert again["row"].to_pylist() == [{"mass": 1.5, "colour": "white"}, {"mass": 2.5, "colour": "rose"}]
    np.testing.assert_array_equal(VECTORS.unpack(again), x)
    assert VECTORS.show(x, facts)[0] == "<small><b>1.5</b> mass<br><b>white</b> colour</small>"
    bare = pa.table({"row": pa.array(again["row"].to_pylist())})
    with pytest.raises(InputError, match="column colour of rows lacks its note of all categories"):
        VECTORS.unpack(bare)


def test_loss_and_decoding_by_hand() -> None:
    kind = CODECS.get("mlp")
    given = {"mean": [5.0, 0.5, 0.5, 0.2, 0.8], "spread": [2.0, 0.5, 0.5, 0.4, 0.4], "listed": False}
    given["categories"] = {"colour": ["red", "white"], "size": ["3", "9"]}
    model = kind.build(kind.settings(kind="mlp", latent_dim=2, width=4), given, 0)
    items = torch.tensor([[7.0, 1, 0, 0, 1], [5.0, 0, 1, 0, 1]])
    output = torch.tensor([[6.0, 2.0, 1.0, 0.0, 3.0], [1.0, 4.0, -1.0, 1.0, 0.5]])
    by_hand = [
        (((7 - 6) / 2) ** 2 + np.log1p(np.exp(1 - 2)) + np.log1p(np.exp(-3))) / 5,
        (((5 - 1) / 2) ** 2 + np.log1p(np.exp(5)) + np.log1p(np.exp(0.5))) / 5,
    ]
    np.testing.assert_allclose(model.error(output, items, Objective(reconstruction="l2")).numpy(), by_hand, rtol=1e-6)
    assert model.to_batch(output).tolist() == [[6, 1, 0, 0, 1], [1, 1, 0, 1, 0]]
    assert output[0, 1] == 2  # as it was


@pytest.mark.parametrize(
    ("columns", "given", "words"),
    [
        ({"a": [1.0, 2], "b": ["x", "y"]}, {"categories": ["c"]}, "data.categories: .* has no column 'c'"),
        ({"a": [1.0, 2], "b": [1, 2]}, {"categories": ["b"], "columns": ["a", "b"]}, "b stands in data.columns too"),
        ({"z": [[1.0], [2.0]], "b": ["x", "y"]}, {"categories": ["b"]}, "categories go with columns of numbers; z of"),
        ({"a": [1.0] * 1001, "b": list(range(1001))}, {"categories": ["b"]}, "'b' has 1,001 values; up to 1,000 are"),
    ],
)
def test_columns_that_cannot_be_categories(tmp_path: Path, columns: Any, given: Any, words: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=words):
        VECTORS.open(settings(tmp_path / "x.parquet", **given)).list()


def test_what_is_no_number_and_no_category_is_told(tmp_path: Path) -> None:
    mass, colour, _ = table()
    pq.write_table(pa.table({"mass": mass, "colour": colour}), tmp_path / "x.parquet")
    assert VECTORS.open(settings(tmp_path / "x.parquet")).notes == (
        "not read, since they are no numbers: colour (see data.categories)",
    )


def test_identity_has_no_place_for_them(tmp_path: Path) -> None:
    tree = {"run_dir": str(tmp_path), "domain": "vectors", "data": {"source": "x.csv", "categories": ["colour"]}}
    with pytest.raises(ConfigError, match=r"categories \(colour\): between two .* only vae.kind: mlp"):
        run({**tree, "engine": "inline"})
    config = build_config({**tree, "vae": {"kind": "mlp"}}, [])
    assert build_config(config.dump(), []) == config


def test_measure_reads_both_sets_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other file has another order and a value that the real rows lack: that row does not count."""
    monkeypatch.setenv("LDSAUG_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).round(3)
    red = rng.random(60) < 0.4
    hot = np.column_stack([x, red, ~red])
    files = {}
    for name, rows in (("real", slice(0, 30)), ("fake", slice(30, 60))):
        columns = {"a": x[rows, 0], "b": x[rows, 1], "colour": np.where(red[rows], "red", "white")}
        if name == "fake":
            columns = {n: np.append(c, {"a": 0, "b": 0, "colour": "green"}[n]) for n, c in columns.items()}
        files[name] = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), files[name])
    mean, spread = hot[:30].mean(0), hot[:30].std(0)
    by_hand = measure((hot[:30] - mean) / spread, (hot[30:] - mean) / spread, k=3)
    data = {"categories": ["colour"], "max_quarantined_fraction": 0.05}
    found = measure(files["real"], files["fake"], domain="vectors", k=3, data=data)
    assert found["n"] == {"real": 30, "fake": 30}
    assert any("'green' is none of data.categories" in note for note in found["notes"])
    for name in ("density", "coverage", "precision", "recall"):
        assert found[name] == by_hand[name]
    assert found["frechet"] == pytest.approx(by_hand["frechet"], rel=1e-4)
