"""With `engine: inline` a whole run works where Ray cannot even be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ldsaug_ray.cli import main

PROGRAM = """
import sys
sys.modules["ray"] = None  # so that `import ray` raises ImportError
from ldsaug_ray.cli import main
sys.exit(main(sys.argv[1:]))
"""
SETTINGS = """
engine: inline
run_dir: run
data: {source: "sklearn:digits", resolution: 16, upscale: true, train: 60, test: 20, part_rows: 32}
vae: {latent_dim: 4, channel_base: 128, channel_max: 8, mapping_layers: 0}
train: {steps: 4, batch_size: 8}
finetune: {steps: 4, batch_size: 8}
score: {n_candidates: 360}
report: {samples: 2, bands: 2}
tracking: {enabled: false}
"""


def test_where_there_is_no_ray_its_engine_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "config.yaml").write_text(SETTINGS)
    assert main(["prepare", str(tmp_path / "config.yaml"), f"run_dir={tmp_path / 'run'}", "engine=ray"]) == 1
    assert "error: Ray cannot be imported (" in (told := capsys.readouterr().err)
    assert told.rstrip().endswith("; engine=inline does the work in this process")


def test_a_whole_run_without_ray(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", "config.yaml"], cwd=tmp_path, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "run/manifest.json").read_text())["stages"]
    assert (stages["score"]["rows_out"], stages["decode"]["rows_out"]) == (360, 72)
    assert (tmp_path / "run/report/index.html").exists()
