"""An experiment that is killed in its arms goes on: arms that are over are not done again."""

from __future__ import annotations

import csv
import signal

import pytest
from cluster_helpers import ended, last_step, network, results
from stages_helpers import interrupt, merge, start

pytestmark = pytest.mark.cluster


def test_killed_in_each_arm(undisturbed, save, tmp_path):
    root = tmp_path / "run"
    changes = {
        "engine": "inline",
        "run_dir": str(root),
        "evaluate": {"extractor": network(tmp_path / "colours.pt"), "n": 20, "k": 3},
        "experiment": {"arms": {"lds": {}, "any": {"settings": {"select.which": "random"}}}, "seeds": [0]},
    }
    config = save(merge(undisturbed, changes))
    arms = {name: {"run_dir": str(root / f"arms/{name}/seed0")} for name in ("baseline", "lds", "any")}
    interrupt(start("experiment", config, cwd=tmp_path), lambda: last_step(arms["lds"]) >= 6, signal.SIGKILL)
    interrupt(start("experiment", config, cwd=tmp_path), lambda: last_step(arms["any"]) >= 3, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors") if "checkpoints" not in path.parts}
    output = ended(start("experiment", config, cwd=tmp_path))
    assert "3 of 3 runs have results" in output
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for stage in ("prepare", "train", "encode", "score", "select", "decode", "finetune"):
        assert results(arms["lds"])[stage] == results(undisturbed)[stage]
    assert results(arms["any"])["finetune"]["digest"] != results(undisturbed)["finetune"]["digest"]
    rows = list(csv.DictReader((root / "experiment/results.csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == ["baseline", "lds", "any", "training images"]
