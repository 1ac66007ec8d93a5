"""`ldsaug export`: folders in the layout that Hugging Face's libraries read, and cards that say what is in them.

The rules of `datasets` are written down here (split names by its sharded pattern, types by the Parquet schema's note,
`configs` of the card); it opens the folder too, offline, and huggingface_hub reads the cards.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from stages_helpers import Tree, manifest

from ldsaug_ray.cli import main
from ldsaug_ray.common.storage import Location
from ldsaug_ray.models import load_vae
from ldsaug_ray.models.checkpoint import weights_digest
from ldsaug_ray.run.directory import RunDir

SHARD = re.compile(r"(\w+(?:\.\w+)*)-(\d{5})-of-(\d{5})\.parquet")  # datasets: data/{split}-?????-of-?????*.*


def card(file: Path) -> tuple[Tree, str]:
    _, metadata, text = file.read_text().split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_run_is_exported(copied: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    out, run, stages = tmp_path / "out", Path(copied["run_dir"]), manifest(copied)
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert f"{stages['decode']['rows_out']:,} images" in capsys.readouterr().out

    files = sorted((out / "dataset/data").iterdir())
    names = [SHARD.fullmatch(f.name) for f in files]
    assert [(m[1], int(m[2]), int(m[3])) for m in names] == [("train", n, len(files)) for n in range(len(files))]
    assert sorted(p.name for p in (out / "dataset").iterdir()) == ["README.md", "data"]
    schema = pq.read_schema(files[0])
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}}
    assert schema.field("image") == pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    rows = pads.dataset(files).to_table()
    assert rows.equals(pads.dataset(sorted((run / "augmented").iterdir())).to_table())
    assert len(rows) == stages["decode"]["rows_out"]
    first = Image.open(io.BytesIO(rows["image"][0].as_py()["bytes"]))
    assert (first.format, first.size) == ("PNG", (16, 16))

    metadata, text = card(out / "dataset/README.md")
    assert metadata["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert sorted((out / "dataset").glob("data/train-*.parquet")) == files
    assert metadata["size_categories"] == ["n<1K"]
    assert [c in rows.column_names for c in re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)] == [True] * 9
    findings = stages["report"]["findings"]
    assert len(findings) > 3
    for said in (*findings, stages["decode"]["digest"], f"{len(rows):,}, PNG", "4,500 scored", "latent_dim: 6"):
        assert said in text

    metadata, text = card(out / "model/README.md")
    assert stages["finetune"]["digest"] in text
    assert metadata["library_name"] == "ldsaug_ray"
    about = json.loads((out / "model/config.json").read_text())
    assert (about["resolution"], about["latent_dim"], about["vae"]["latent_dim"]) == (16, 6, 6)
    both = [load_vae(Location.of(p)) for p in (out / "model", run / "finetune/vae.safetensors")]
    assert weights_digest(both[0]) == weights_digest(both[1])
    monkeypatch.chdir(out)
    shown = {"z": np.zeros((2, 6), np.float32)}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], shown)
    assert shown["images"].shape == (2, 16, 16, 3)

    cards = pytest.importorskip("huggingface_hub")
    assert cards.DatasetCard.load(out / "dataset/README.md").data.pretty_name == "Augmentation of run"
    assert cards.ModelCard.load(out / "model/README.md").data.pipeline_tag == "unconditional-image-generation"

    assert main(["export", str(run), "--out", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    (out / "dataset/data/train-00007-of-00009.parquet").write_text("of another run")
    assert main(["export", str(run), "--out", str(out), "--overwrite"]) == 0
    assert sorted((out / "dataset/data").iterdir()) == files
    (out / "model/README.md").write_text("# Mine\n")
    assert main(["export", str(run), "--out", str(out), "--overwrite"]) == 1
    assert "holds files that export did not write" in capsys.readouterr().err
    assert sorted((out / "dataset/data").iterdir()) == files


LOADED = """
import json, sys
from datasets import load_dataset
found = load_dataset(sys.argv[1])
rows = found["train"]
pixels = [rows[n]["image"].convert("RGB").tobytes().hex() for n in (0, len(rows) - 1)]
first = {name: value for name, value in rows[0].items() if name != "image"}
print(json.dumps([list(found), len(rows), type(rows.features["image"]).__name__, pixels, first]))
"""


def test_datasets_opens_it(copied: Tree, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    assert main(["export", copied["run_dir"], "--out", str(tmp_path / "out")]) == 0
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path / "out/dataset")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pads.dataset(sorted((Path(copied["run_dir"]) / "augmented").iterdir())).to_table()
    ends = [rows["image"][n].as_py()["bytes"] for n in (0, len(rows) - 1)]
    pixels = [Image.open(io.BytesIO(png)).convert("RGB").tobytes().hex() for png in ends]
    first = rows.drop_columns(["image"]).slice(0, 1).to_pylist()[0]
    assert json.loads(done.stdout) == [["train"], len(rows), "Image", pixels, first]


def test_what_is_not_complete(copied: Tree, tmp_path: Path, capsys) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no run directory" in capsys.readouterr().err
    run = RunDir(Location.of(copied["run_dir"]))
    for stage in ("report", "finetune", "decode"):
        run.reset(stage)
    out = tmp_path / "out"
    assert main(["export", copied["run_dir"], "--out", str(out)]) == 0
    assert "dataset  none" in capsys.readouterr().out
    assert [p.name for p in out.iterdir()] == ["model"]
    text = (out / "model/README.md").read_text()
    assert "the baseline, stylegan2" in text
    assert "the run has no report" in text
    config = Path(copied["run_dir"]) / "config.yaml"
    config.write_text(config.read_text().replace("latent_dim: 6", "latent_dim: 8"))
    assert main(["export", copied["run_dir"], "--out", str(tmp_path / "other")]) == 1
    assert "stage train is out of date" in capsys.readouterr().err
    run.reset("train")
    assert main(["export", copied["run_dir"], "--out", str(tmp_path / "other")]) == 1
    assert "nothing to export yet" in capsys.readouterr().err
