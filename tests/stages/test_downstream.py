"""`evaluate.downstream` on a small run of digits, against the same training by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest
from PIL import Image
from rich.console import Console
from stages_helpers import Tree, merge

from ldsaug_ray.config import Config
from ldsaug_ray.engines.inline import InlineEngine
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import MEASURES, Evaluated
from ldsaug_ray.metrics.downstream import hits, sentence
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.search.objectives import check_objectives
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import run_stages

STEPS, BATCH = 12, 10


@pytest.fixture(scope="module")
def digits(base: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A run up to `decode`."""
    changes: Tree = {
        "run_dir": str(tmp_path_factory.mktemp("downstream") / "run"),
        "data": {"source": "sklearn:digits", "upscale": True, "train": 60, "test": 30, "attributes": "columns"},
        "score": {"n_candidates": 270, "part_candidates": 90},
        "tracking": {"enabled": False},
        "evaluate": {
            "extractor": "pixels",
            "n": 20,
            "k": 3,
            "models": ["train"],
            "detection": {"corruptions": []},
            "downstream": {"label": "even", "steps": STEPS, "batch_size": BATCH, "seeds": 2},
        },
    }
    tree = merge(base, changes)
    run_stages(_job(tree), ["prepare", "train", "encode", "score", "select", "decode"])
    return tree


def _job(tree: Tree, **downstream: Any) -> Job:
    config = Config.model_validate(merge(tree, {"evaluate": {"downstream": downstream}} if downstream else {}))
    return Job(config, open_run_dir(config), Console(file=io.StringIO()), InlineEngine(config))


def _evaluated(job: Job) -> dict[str, Any]:
    run_stages(job, ["evaluate"])
    found: dict[str, Any] = json.loads((Path(job.config.run_dir) / "evaluate/metrics.json").read_text())
    return found


def _real(tree: Tree, split: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    table = pads.dataset(Path(tree["run_dir"]) / "images", format="parquet").to_table()
    table = table.filter(pads.field("split") == split)
    images = np.array([np.frombuffer(x, np.uint8) for x in table["image"].to_pylist()]).reshape(-1, 16, 16, 3)
    return images, table["key"].to_pylist(), np.array([a["even"] for a in table["attributes"].to_pylist()])


@pytest.mark.parametrize("labels", ["soft", "same"])
def test_numbers_are_those_of_the_same_training_by_hand(digits: Tree, labels: str) -> None:
    job = _job(digits, labels=labels)
    found = _evaluated(job)
    told = found["downstream"]
    (x, keys, y), (test, _, classes) = _real(digits, "train"), _real(digits, "test")
    even = dict(zip(keys, y, strict=True))
    a = (
        pads.dataset(Path(digits["run_dir"]) / "augmented", format="parquet")
        .to_table()
        .sort_by("candidate")
        .to_pylist()
    )
    drawn = {r["key"] for f in job.run.folder("features/augmented/parts").files() for r in f.read_table().to_pylist()}
    pictures, soft = [], []
    for row in a:
        i, j = even[row["parent_i"]], even[row["parent_j"]]
        if row["key"] not in drawn or (labels == "same" and i != j):
            continue
        of_even = (1 - row["alpha"]) * (i == 1) + row["alpha"] * (j == 1)
        pictures.append(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))))
        soft.append([1 - of_even, of_even])
    assert told["n"] == {"train": 60, "augmented": len(soft), "test": 30}
    assert told["without_label"]["augmented"] == len(drawn) - len(soft)
    train = x, np.stack([y == -1, y == 1], axis=1).astype(np.float32)
    of_a = np.stack(pictures), np.array(soft, np.float32)
    for arm, sets in {"train": [train], "train + A": [train, of_a], "A": [of_a]}.items():
        for seed in (0, 1):
            right = hits(sets, test, (classes == 1).astype(int), steps=STEPS, batch_size=BATCH, seed=seed)
            assert told["arms"][arm]["by_seed"][seed] == pytest.approx(right.mean()), (arm, seed)
    gain = np.mean(told["arms"]["train + A"]["by_seed"]) - np.mean(told["arms"]["train"]["by_seed"])
    assert told["gain"]["value"] == pytest.approx(gain)
    entry = job.run.require("evaluate", "downstream")  # what MLflow gets
    assert entry["gain"] == told["gain"]
    assert MEASURES.get("downstream").take(Evaluated.from_json(found), "augmented") == pytest.approx(gain)


def test_kept_until_what_it_depends_on_changes(digits: Tree) -> None:
    parts = Path(digits["run_dir"]) / "downstream/parts"
    job = _job(digits)
    _evaluated(job)
    before = {p.name: p.stat().st_mtime_ns for p in parts.iterdir()}
    assert len(before) == 6
    _evaluated(Job(Config.model_validate(merge(digits, {"evaluate": {"k": 4}})), job.run, job.console, job.engine))
    assert {p.name: p.stat().st_mtime_ns for p in parts.iterdir()} == before
    on_features = _evaluated(_job(digits, of="features"))["downstream"]
    assert {p.name: p.stat().st_mtime_ns for p in parts.iterdir()} != before
    assert "A adds" in sentence(on_features)


def test_without_a_there_is_nothing_to_compare(digits: Tree) -> None:
    alone = merge(digits, {"evaluate": {"augmented": False}})
    told = _evaluated(_job(alone))["downstream"]
    assert list(told["arms"]) == ["train"]
    assert "gain" not in told
    assert "there is no A that it could learn from" in sentence(told)


def test_what_cannot_be_is_refused(digits: Tree) -> None:
    with pytest.raises(InputError, match="beauty"):
        _evaluated(_job(digits, label="beauty"))
    bare = merge(digits, {"data": {"attributes": None}})
    with pytest.raises(ValueError, match=r"evaluate\.downstream\.label needs labelled images; set data\.attributes"):
        _job(bare)
    config = Config.model_validate({**bare, "evaluate": {}})
    with pytest.raises(ConfigError, match=r"downstream needs evaluate\.downstream\.label, such as digit"):
        check_objectives(({"downstream": 1.0},), config.evaluate)
