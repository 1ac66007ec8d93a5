"""Images that are all one picture: told before anything is trained on them, and at the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.commands.summary import print_summary
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import Counts
from ldsaug_ray.run.opening import open_run_dir

PICTURES = {
    "all are one": (["a"] * 48, True),
    "some differ": (["a"] * 39 + ["b"] * 9, False),
    "one picture in each part": (["a"] * 16 + ["b"] * 16 + ["c"] * 16, False),
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    data = {"source": str(tmp_path / "images"), "resolution": 16, "train": 40, "test": 8, "part_rows": 16}
    tree = {"run_dir": str(tmp_path / "run"), "engine": "inline", "data": data, "tracking": {"enabled": False}}
    return Config.model_validate(tree)


@pytest.mark.parametrize(("letters", "alike"), PICTURES.values(), ids=PICTURES)
def test_prepare_tells_it(
    letters: list[str], alike: bool, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files differ in their names and formats; the pictures count."""
    (tmp_path / "images").mkdir()
    for n, letter in enumerate(letters):
        pixels = np.random.default_rng(ord(letter)).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n:02}.{'png' if n % 2 else 'bmp'}")
    assert run_command(config, "prepare") == 0
    out, err = capsys.readouterr()
    told = "all 40 training images are the same picture: their latents will coincide"
    assert (told in err, told in out) == (alike, alike)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["stages"]["prepare"].get("identical_images", False) == alike


@pytest.mark.parametrize(("threshold", "coincide"), [(0.0, True), (-1e-7, True), (-0.01, False), (None, False)])
def test_the_summary_tells_it(
    threshold: float | None, coincide: bool, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """LDS is 1 only where all training latents lie: the least dense candidate that was kept shows it."""
    run = open_run_dir(config)
    run.finish("prepare", "f", Counts(24, 24), "d", 1.0, 24, train_images=20)
    facts = {"threshold_tau": 1.0, "binding_rule": "top_fraction", "rules": ["top_fraction"], "paper_tau": 0.28}
    which = "random" if threshold is None else "lds"
    run.finish("select", "f", Counts(90, 18, 72), "d", 1.0, 90, which=which, threshold_log_lds=threshold, **facts)
    print_summary(run, ["select"], {})
    assert ("All 20 training latents coincide, and LDS is 1" in capsys.readouterr().out) == coincide
