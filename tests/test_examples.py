"""The examples, run as they stand: the notebook in a kernel, scripts as a user starts them, on little data."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from stages_helpers import Finished

from ldsaug_ray import augment, load_run
from ldsaug_ray.errors import ConfigError

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Jupyter's, of its own parts
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(EXAMPLES / "digits.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]  # they would grow old
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "(1000, 16) 2700 candidates, 540 selected" in text
    spread = [np.array(counts.split(), int) for counts in re.findall(r"of each digit: \[([\d ]+)\]", text)]
    assert [counts.sum() for counts in spread] == [540, 540]
    assert spread[1].min() > spread[0].min()  # of each parent: no digit is lost
    assert (tmp_path / "runs/notebook/report/index.html").exists()


def test_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    z = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    paper, found = (augment(z, n=900, sigma=0.5, which=which) for which in ("lds", "no_copies:NoCopies"))
    weights = np.exp(-((paper.z[:, None] - z) ** 2).sum(-1) / (2 * 0.5**2))
    share = np.take_along_axis(weights, paper.parents, axis=1).sum(1) / weights.sum(1)
    want = paper.candidate[share <= 0.5]
    assert 0 < len(want) < len(paper) == 180
    assert found.candidate.tolist() == want.tolist()
    assert found.regime.sentences[1].endswith("; at most 50% of it from the own parents.")
    with pytest.raises(ConfigError, match=r"does not go with select\.balance"):
        augment(z, n=900, which="no_copies:NoCopies", balance="parent")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_ray_data(finished: Finished, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    vae = Path(finished.settings["run_dir"]) / "train/vae.safetensors"
    monkeypatch.setattr(sys, "argv", ["ray_data.py", str(vae), str(pictures), "16", str(tmp_path / "out")])
    runpy.run_path(str(EXAMPLES / "ray_data.py"), run_name="__main__")
    told = re.findall(r"unlike the others: .*(disc-\d+)\.png, log LDS (\S+)", capsys.readouterr().out)
    assert len({name for name, _ in told}) == 5
    assert [float(log) for _, log in told] == sorted(float(log) for _, log in told)
    images = list((tmp_path / "out").glob("*.png"))
    assert len(images) == 108  # a fifth of nine times sixty
    for file in images:
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("RGB", (16, 16))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).normal(size=(200, 4))
    search = runpy.run_path(str(EXAMPLES / "tune.py"))["search"]
    results = search(z, 2)
    assert results.num_errors == 0
    found = results.get_dataframe()
    assert len(set(found["config/scale"])) == 2
    assert results.get_best_result().metrics["frechet"] == found["frechet"].min()


def test_the_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["own_domain.py", str(tmp_path)])
    text = (EXAMPLES / "own_domain.py").read_text()
    assert len(text[text.index("class Melodies") : text.index("if __name__")].splitlines()) < 80
    runpy.run_path(str(EXAMPLES / "own_domain.py"), run_name="__main__")
    run = load_run(tmp_path / "run")
    stages = run.manifest["stages"]
    assert stages["prepare"]["quarantine_reasons"] == {"not 16 notes of CDEFGAB: 'no song'": 1}
    assert {len(text) for text in run.augmented["melody"].to_pylist()} == {16}
    assert stages["finetune"]["rows_out"] == stages["prepare"]["train_images"] + stages["decode"]["rows_out"]
    out = capsys.readouterr()
    assert "300/300 melodies" in out.err + out.out
    page = (tmp_path / "run/report/index.html").read_text()
    assert "training melodies" in page
    assert "training images" not in page
    assert "<code>" in page
