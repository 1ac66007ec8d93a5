"""Which A: random, typical, the sharpest, or none, through select, decode and the report."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from PIL import Image
from stages_helpers import Tree, manifest, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.metrics import sharpness
from ldsaug_ray.report import gather, report_page
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.selection.balance import nearer
from ldsaug_ray.selection.threshold import conformal_band


def table(settings: Tree, folder: str) -> pa.Table:
    return pads.dataset(Path(settings["run_dir"]) / folder, format="parquet").to_table().sort_by("candidate")


def run(settings: Tree, *commands: str) -> None:
    for command in commands:
        assert run_command(Config.model_validate(settings), command) == 0


def page(settings: Tree) -> str:
    config = Config.model_validate(settings)
    return report_page(gather(open_run_dir(config, create=False), config))


def test_random_draws_as_many_without_regard_to_density(copied, capsys):
    settings = merge(copied, {"select": {"which": "random"}})
    run(settings, "select", "decode")
    out = capsys.readouterr().out
    assert "kept 900 of 4,500 candidates, drawn at random: as many as top_fraction keeps, no threshold" in out
    assert "LDS ≥" not in out
    entry = manifest(settings)["select"]
    assert (entry["rows_out"], entry["which"], entry["threshold_log_lds"]) == (900, "random", None)
    drawn, every = table(settings, "selected"), table(settings, "scores")["log_lds"].to_numpy()
    ids = drawn["candidate"].to_numpy()
    assert len(set(ids.tolist())) == 900
    ranks = np.argsort(np.argsort(every))[ids]
    assert abs(ranks.mean() / 4500 - 0.5) < 0.05  # of the densest it would be 0.9
    assert table(settings, "augmented")["candidate"].to_pylist() == ids.tolist()
    text = page(settings)
    assert "drawn at random" in text
    assert "The least dense candidate that was kept" not in text
    assert "The threshold is" not in text
    RunDir(Location.of(settings["run_dir"])).reset("score")  # other files, the same candidates
    run(merge(settings, {"score": {"part_candidates": 900}}), "score", "select")
    assert table(settings, "selected")["candidate"].to_pylist() == ids.tolist()


def test_none_keeps_nothing_and_goes_on(copied, capsys):
    settings = merge(copied, {"select": {"which": "none"}})
    config = Config.model_validate(settings)
    run(settings, "select", "decode")
    assert "kept 0 of 4,500 candidates: select.which is none" in capsys.readouterr().out
    counts = {s: [manifest(settings)[s][f"rows_{k}"] for k in ("in", "out", "dropped")] for s in ("select", "decode")}
    assert counts == {"select": [4500, 0, 4500], "decode": [0, 0, 0]}
    assert not list((Path(settings["run_dir"]) / "augmented").glob("*"))
    assert run_command(config, "run", dry_run=True) == 0
    RunDir(Location.of(settings["run_dir"])).reset("finetune")
    run(settings, "report")
    text = page(settings)
    assert "none" in text
    assert "Nothing was selected" in text
    for wrong in ("The densest 0", "The least dense candidate", "– of the selected"):
        assert wrong not in text


def test_typical_is_the_band_of_held_out_latents(copied):
    settings = merge(copied, {"select": {"which": "typical", "typical": 0.5}})
    run(settings, "select", "decode")
    low, high = conformal_band(pads.dataset(Path(copied["run_dir"]) / "held_out").to_table()["log_lds"].to_numpy(), 0.5)
    scores = table(settings, "scores")
    kept = scores.filter((pads.field("log_lds") >= low) & (pads.field("log_lds") <= high))
    assert table(settings, "augmented")["candidate"].to_pylist() == kept["candidate"].to_pylist()
    assert Config.model_validate(merge(copied, {"select": {"which": "typical"}})).select.typical == 0.9
    assert "The band of typical = 0.5" in page(settings)


def test_the_sharpest_are_kept_and_the_rest_counted(copied, capsys):
    settings = merge(copied, {"select": {"which": "lds+sharpness", "top_count": 200}, "decode": {"sharpest": 0.3}})
    run(settings, "select", "decode")
    assert "kept 60 of 200 decoded images, the sharpest" in capsys.readouterr().out
    entry = manifest(settings)["decode"]
    assert [entry[f"rows_{k}"] for k in ("in", "out", "dropped")] == [200, 60, 140]
    decoded, kept = table(settings, "decoded"), table(settings, "augmented")
    images = np.stack([np.asarray(Image.open(io.BytesIO(x["bytes"]))) for x in decoded["image"].to_pylist()])
    measured = sharpness(images)
    np.testing.assert_array_equal(decoded["sharpness"].to_numpy(), measured)
    order = np.lexsort((decoded["candidate"].to_numpy(), -measured))[:60]
    assert kept.equals(decoded.take(np.sort(order)))
    assert entry["least_sharpness"] == measured[order[-1]]
    assert entry["sharpness"]["median"] == np.median(measured[order])
    text = page(settings)
    assert "140 of 200 decoded images were dropped as less sharp" in text

    half = RunDir(Location.of(settings["run_dir"]))  # killed in the second half: half of the parts are passed on
    digest = entry["digest"]
    half.manifest["stages"].pop("decode")
    half._write_manifest()
    for file in list((Path(settings["run_dir"]) / "_progress/decode").glob("*.unit.json"))[::2]:
        file.unlink()
    stamps = {p: p.stat().st_mtime_ns for p in (Path(settings["run_dir"]) / "decoded").rglob("*.parquet")}
    one = merge(settings, {"decode": {"workers": {"count": 1}}})
    run(one, "decode")
    assert manifest(one)["decode"]["digest"] == digest
    assert manifest(one)["decode"]["rows_resumed"] == 200
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    assert not list((Path(merge(one, {})["run_dir"]) / "augmented").glob("*.tmp"))
    run(merge(settings, {"select": {"which": "lds"}}), "select", "decode")
    assert manifest(settings)["decode"]["rows_out"] == 200
    assert not (Path(settings["run_dir"]) / "decoded").exists()


def test_every_decoded_image_has_its_sharpness(finished):
    made = table(finished.settings, "augmented")
    images = np.stack([np.asarray(Image.open(io.BytesIO(x["bytes"]))) for x in made["image"].to_pylist()])
    np.testing.assert_array_equal(made["sharpness"].to_numpy(), sharpness(images))


def test_what_makes_no_sense_is_refused():
    base = ["run_dir=r", "data.source=s"]
    for given, words in (
        (["select.which=some"], "select.which: unknown selection rule 'some'; possible: lds, lds"),
        (["select.which=none", "sample.prior=kde", "sample.with_augmented=true"], "select.which: none keeps nothing"),
        (["sample.with_augmented=true"], "sample.prior: mixture or kde"),
        (["select.which=typical", "data.test=0"], "data.test above 0"),
        (["decode.sharpest=0"], "decode.sharpest must be more than 0"),
        (["sample.n=0"], "sample.n must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_config(None, [*base, *given])
    assert not load_config(None, [*base, "select.which=none", "select.tau=auto", "data.test=0"]).select.needs_held_out


def test_balance_keeps_the_densest_of_each_group(copied, capsys):
    settings = merge(copied, {"select": {"balance": "parent", "top_count": 440}})
    run(settings, "select", "decode")
    rows = table(settings, "scores").to_pylist()
    ids = np.array([row["candidate"] for row in rows])
    second = nearer(ids, np.array([row["alpha"] for row in rows]), 0)
    parent = [row["parent_j"] if of_j else row["parent_i"] for row, of_j in zip(rows, second, strict=True)]
    kept = table(settings, "selected")["candidate"].to_pylist()
    sizes = Counter(parent)
    assert len(sizes) == 44
    assert min(sizes.values()) >= 10
    for key in sizes:  # 440 of 44 groups are ten of each
        mine = sorted((-row["log_lds"], row["candidate"]) for row, of in zip(rows, parent, strict=True) if of == key)
        assert [c for c in kept if parent[c] == key] == sorted(c for _, c in mine[:10])
    sentence = "kept 440 of 4,500 candidates, the densest of each of 44 groups (select.balance: parent): LDS ≥ "
    assert sentence in capsys.readouterr().out
    assert "top_count = 440 within each group of balance = parent" in page(settings)
    run(merge(settings, {"select": {"balance": "cluster", "clusters": 5}}), "select")
    assert manifest(settings)["select"]["groups"] == 5
    assert len(table(settings, "selected")) == 440
