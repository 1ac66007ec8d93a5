"""Labels with many values as groups of candidates and as modes of A, on a run directory made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import Counts, RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.stages.shared.groups import grouped
from ldsaug_ray.stages.shared.modes import Modes

KEYS = list("dacb")  # stored in another order than that of the keys
DIGITS = [0, 2, 2, 0]
SCORES = pa.table(
    {
        "candidate": [4, 5, 6, 7],
        "parent_i": ["a", "a", "b", "d"],
        "parent_j": ["b", "b", "c", "a"],
        "alpha": [0.25, 0.75, 0.25, 0.25],
        "log_lds": [-1.0, -2.0, -3.0, -4.0],
    }
)


def encoded(folder: Path, digits: Sequence[int | None]) -> RunDir:
    run = RunDir(Location.of(str(folder / "run")))
    run.create()
    run.begin("encode", "x")
    attributes = pa.StructArray.from_arrays(
        [pa.array(digits, pa.int32()), pa.array([1, -1, 1, None], pa.int8())], names=["digit", "old"]
    )
    z = vectors(np.arange(8, dtype=np.float32).reshape(4, 2))
    table = pa.table({"key": KEYS, "split": ["train"] * 4, "z": z, "attributes": attributes})
    (run.folder("latents") / "part-000000.parquet").write_table(table)
    run.finish("encode", "x", Counts(4, 4), "d", 0.0, 4, latent_dim=2)
    return run


def config(*overrides: str) -> Config:
    return load_config(None, ["run_dir=r", "data.source=s", "data.attributes=columns", *overrides])


def test_labels_are_read_beside_binary_attributes(tmp_path: Path) -> None:
    latents = read_latents(encoded(tmp_path, [0, 2, None, 0]), "train")
    assert latents.keys.to_pylist() == list("abcd")
    assert (latents.attribute_names, latents.categorical) == (("digit", "old"), {"digit"})
    assert latents.attributes.tolist() == [[3, -1], [1, 0], [0, 1], [1, 1]]


def test_a_candidate_is_of_its_nearer_parents_label(tmp_path: Path) -> None:
    def read(columns: Sequence[str]) -> Iterator[pa.Table]:
        yield SCORES.select(columns)

    latents, looked_at = read_latents(encoded(tmp_path, DIGITS), "train"), ["candidate", "log_lds"]
    found = grouped(config("select.balance='label:digit'"), latents, looked_at, read)
    assert list(found.names) == ["digit 0", "digit 2"]
    for _ in range(2):  # it can be gone through again
        (table,) = found
        assert table["group"].to_pylist() == [1, 0, 0, 0]  # nearer to a, b, b, d
    with pytest.raises(InputError, match=r"label:old: 1 of 4 training images have no such label, as 'b'"):
        grouped(config("select.balance='label:old'"), latents, looked_at, read)


def test_a_missing_label_is_told(tmp_path: Path) -> None:
    latents = read_latents(encoded(tmp_path, [0, None, 2, None]), "train")
    with pytest.raises(InputError, match=r"label:digit: 2 of 4 training images have no such label, as 'a'"):
        grouped(config("select.balance='label:digit'"), latents, ["candidate", "log_lds"], lambda columns: iter(()))


def test_modes_count_labels_by_the_parents_weights(tmp_path: Path) -> None:
    modes = Modes(config("select.top_fraction=0.5"), read_latents(encoded(tmp_path, DIGITS), "train"), 4, "log_lds")
    assert set(modes.groups) == {"values of digit"}  # too few latents for clusters; old is not asked for
    modes.see(SCORES.slice(0, 3), np.array([True, True, False]))
    modes.see(SCORES.slice(3), np.array([False]))
    (found,) = modes.facts(2, 4)["modes"].values()
    # kept: 0.75 a + 0.25 b and 0.25 a + 0.75 b; a is a 2, b a 0
    assert found["a"] == pytest.approx(np.exp(stats.entropy([1.0, 1.0])))
    assert found["train"] == pytest.approx(2)
    # two of four, the densest of a (1 candidate), b (2) and d (1): quotas 0.5, 1, 0.5, so b's 5, and a's 4 or d's 7
    both = [np.exp(stats.entropy([0.25 + 0.75, 0.75 + 0.25])), np.exp(stats.entropy([0.75 + 0.75, 0.25 + 0.25]))]
    assert min(abs(found["parent"] - each) for each in both) < 1e-9
