"""`ldsaug status` of a run that is done, interrupted, running or out of date; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from stages_helpers import merge

from ldsaug_ray.cli import main
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import CHECKPOINTS, RunDir
from ldsaug_ray.run.opening import open_run_dir, sole_driver
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.search.trials import Trial
from ldsaug_ray.stages.shared.checkpoints import RECORD


def status(folder: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, str]]:
    """What is printed, and each stage's line of the table."""
    assert main(["status", folder]) == 0
    output = capsys.readouterr().out
    lines = [line.strip("│ ") for line in output.splitlines() if "│" in line]
    return output, {line.split()[0]: line for line in lines}


@pytest.mark.usefixtures("finished")
def test_status_of_a_run(copied, capsys, tmp_path):
    root = Path(copied["run_dir"])
    Config.model_validate(copied)
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    output, lines = status(str(root), capsys)
    assert "no command is at work" in output
    assert "would do nothing" in output
    assert all(" done " in lines[stage] for stage in STAGES if stage != "evaluate")
    assert "4,500" in lines["score"]
    assert stamps == {p: p.stat().st_mtime_ns for p in root.rglob("*")}

    run = RunDir(Location.of(root))
    fingerprint = run.require("finetune", "fingerprint")
    run.reset("finetune")
    run.begin("finetune", fingerprint)
    checkpoint = run.folder(f"finetune/{CHECKPOINTS}/00000003")
    (checkpoint / "vae.safetensors").write_bytes(b"half of")  # it is being saved: the record comes last
    assert "nothing is kept of it yet" in status(str(root), capsys)[1]["finetune"]
    (checkpoint / RECORD).write_json({})
    assert "last checkpoint: step 3" in status(str(root), capsys)[1]["finetune"]

    run.manifest["stages"].pop("score")
    run.note("format", 1)
    for marker in sorted((root / "_progress/score").glob("*.unit.json"))[10:]:
        marker.unlink()
    output, lines = status(str(root), capsys)
    assert "interrupted" in lines["score"]
    assert "10 units, 1,800 rows so far" in lines["score"]
    assert "out of date" in lines["select"]
    after = [stage for stage in list(STAGES)[list(STAGES).index("select") :] if stage != "evaluate"]
    assert {"select", "decode", "finetune", "report"} <= set(after)
    assert f"would continue score, {', '.join(f'run {stage}' for stage in after)}" in output
    with sole_driver("run_dir", Location.of(root)):
        output, lines = status(str(root), capsys)
    assert "process " in output
    assert " running " in lines["score"]

    changed = Config.model_validate(merge(copied, {"select": {"tau": 0.5}}))
    open_run_dir(changed)
    Trial({"select.tau": 0.1}, 1, "same", "crashed").write(Location.of(root))
    output, lines = status(str(root), capsys)
    assert "search: 1 trials: 1 crashed" in output
    assert "`ldsaug tune` again goes on" in output


def test_status_of_what_is_no_run(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert "no run directory (it has no config.yaml)" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "absent")]) == 1
