"""A whole experiment on the tiny run: arms share what they can, fail alone, and go on where they were."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from stages_helpers import Tree, digests, manifest, merge, script

from ldsaug_ray.cli import main
from ldsaug_ray.config import load_config
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.tracking import tracking_uri
from ldsaug_ray.stages.shared.runner import plan_steps

ARMS = {
    "lds": {"about": "the paper's"},
    "cycle+": {"settings": {"finetune.uses": {"pixels": 0, "cycle": 1.0}}},
    "nothing": {"settings": {"select.tau": 0.999999}},
}


@pytest.fixture
def file(tree: Tree, tmp_path: Path, mlflow_there: None) -> Path:
    """An experiment of three arms, one of which selects nothing, on one training-set size."""
    network = script(tmp_path / "colours.pt")
    changes = {
        "score": {"n_candidates": 270},
        "finetune": {"steps": 3},
        "evaluate": {"extractor": network, "n": 20, "k": 3, "detection": {"others": tree["data"]["source"]}},
        "experiment": {"arms": ARMS, "control": "lds", "seeds": [1], "train": [30]},
    }
    out = tmp_path / "experiment.yaml"
    out.write_text(yaml.safe_dump(merge(tree, changes), sort_keys=False))
    return out


def test_arms_share_fail_alone_and_go_on(file, tmp_path, capsys):
    assert main(["experiment", str(file), "--dry-run"]) == 0
    assert not (tmp_path / "run").exists()
    assert main(["experiment", str(file)]) == 1
    output = capsys.readouterr()
    assert "nothing n30-seed1 came to no result" in output.out
    assert "3 of 4 runs have results" in output.out
    assert "One seed: no difference can be told from chance. In Fréchet distance " in output.out
    assert "its control lds" in output.out
    assert "cycle+: takes over prepare, train, encode, score, select, decode" in output.err
    root = tmp_path / "run"
    place = {name: root / f"arms/{name}/n30-seed1" for name in ("baseline", *ARMS)}
    settings = {name: {"run_dir": str(folder)} for name, folder in place.items()}

    # the same files under two names, A between two arms too; what is an arm's own is not shared
    for name in ("train/vae.safetensors", "features/test/manifest.json"):
        same = os.path.samefile(place["baseline"] / name, place["lds"] / name)
        assert same == name.endswith("safetensors")
    parts = [sorted((place[name] / "features/augmented/parts").iterdir()) for name in ("lds", "cycle+")]
    assert all(os.path.samefile(a, b) for a, b in zip(*parts, strict=True))
    assert manifest(settings["baseline"]).keys() == {"prepare", "train", "encode", "score", "evaluate"}
    assert "decode" not in manifest(settings["nothing"])
    assert digests(settings["lds"])["finetune"] != digests(settings["cycle+"])["finetune"]

    # an arm is an ordinary run: its own settings find it complete
    alone = load_config(str(place["cycle+"] / "config.yaml"))
    steps = plan_steps(alone, open_run_dir(alone, create=False), ["decode", "finetune", "evaluate"])
    assert [step.state for step in steps] == ["complete"] * 3

    rows = list(csv.DictReader((root / "experiment/results.csv").read_text().splitlines()))
    assert [r["arm"] for r in rows] == ["baseline", "lds", "cycle+", "training images"]
    assert {r["train_images"] for r in rows} == {"30"}
    for row in rows[:3]:
        told = json.loads((place[row["arm"]] / "evaluate/metrics.json").read_text())
        numbers = told["sets"]["baseline" if row["arm"] == "baseline" else "finetuned"]
        assert float(row["frechet"]) == numbers["frechet"]["value"]
        assert bool(told["detection"]) == (row["arm"] == "baseline")
    assert {d["group"] for d in json.loads((place["baseline"] / "evaluate/metrics.json").read_text())["detection"]} == {
        "blur",
        "noise",
        "occlusion",
        "shuffled patches",
        "others",
    }
    page = (root / "experiment/index.html").read_text()
    assert page.count("Images drawn from the model of arm") == 3

    client = MlflowClient(tracking_uri())
    noted = {name: json.loads((folder / "manifest.json").read_text())["mlflow"] for name, folder in place.items()}
    parent = client.get_run(json.loads((root / "manifest.json").read_text())["mlflow"]["run_id"])
    assert parent.info.status == "FAILED"  # one of its arms did
    assert parent.data.metrics["lds/frechet"] == pytest.approx(float(rows[1]["frechet"]))
    for name, known in noted.items():
        child = client.get_run(known["run_id"])
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["ldsaug.arm"] == name
        assert child.info.status == ("FAILED" if name == "nothing" else "FINISHED")

    tables = (root / "experiment/tables.md").read_text()
    assert "nothing, seed 1, came to no result: select.tau = 0.999999 keeps none" in tables
    assert "### AUROC of log LDS: test images against" in tables
    assert len(list((root / "experiment").glob("differences.csv"))) == 1

    # again: nothing is done twice, a mended arm is done, and no MLflow run comes twice
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*.parquet")}
    mended = "experiment.arms.nothing.settings={select.which: none, finetune.mixing: null}"
    assert main(["experiment", str(file), mended]) == 0
    output = capsys.readouterr()
    assert "lds: already complete" in output.err
    assert "4 of 4 runs have results" in output.out
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    again = json.loads((place["lds"] / "manifest.json").read_text())["mlflow"]
    assert again == noted["lds"]

    # what an arm gave under other settings is no result of this experiment
    capsys.readouterr()
    assert main(["experiment", str(file), mended, "experiment.arms.lds.settings={select.tau: 0.999999}"]) == 1
    assert "3 of 4 runs have results" in capsys.readouterr().out
    rows = list(csv.DictReader((root / "experiment/results.csv").read_text().splitlines()))
    assert [r["arm"] for r in rows] == ["baseline", "cycle+", "nothing", "training images"]


def test_a_baseline_that_cannot_be_made_ends_it(file, capsys):
    assert main(["experiment", str(file), "experiment.train=[500]"]) == 1
    assert "data.train" in capsys.readouterr().err


def test_a_missing_extractor_is_told_before_any_work(file, tmp_path, capsys):
    assert main(["experiment", str(file), f"evaluate.extractor={tmp_path}/none.pt"]) == 1
    assert "none.pt" in capsys.readouterr().err
    assert not (tmp_path / "run/arms").exists()
