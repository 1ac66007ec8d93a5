"""A measure, a prior and an extractor of the user's own in a run, in this process: where their numbers go."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.metrics import Evaluated
from ldsaug_ray.models.priors import noise
from ldsaug_ray.report._evaluation import read_evaluation
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.pipeline import STAGES, identity

CODE = """
import torch
from ldsaug_ray.metrics import FeatureNetwork, Measure, Reading
from ldsaug_ray.models.priors import Prior, noise
def spread(sample):
    return Reading(float(sample.features.std()))
Spread = Measure(name="spread", title="spread of features", better="more", take=spread)
class Means(FeatureNetwork):
    def features(self, network, pixels):
        return pixels.mean(dim=(2, 3))
class Twice(Prior):
    reads = "nothing"
    def draw(self, fitted, latents, start, stop, seed):
        return 2 * noise(latents.shape[1], start, stop, seed)[1]
    def sentence(self, facts, latents):
        return "N(0, 4 I)"
"""
SMALL = {
    "data": {"source": "sklearn:digits", "resolution": 16, "upscale": True, "train": 24, "test": 12, "part_rows": 32},
    "vae": {"latent_dim": 4, "channel_base": 64, "channel_max": 4, "mapping_layers": 0},
    "train": {"steps": 1, "batch_size": 4},
    "evaluate": {"n": 10, "k": 2, "models": ["train"], "extractor": "own_code:Means", "measures": ["own_code:Spread"]},
    "sample": {"prior": "own_code:Twice"},
}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "theirs").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "theirs")
    file = tmp_path / "theirs/own_code.py"
    file.write_text(CODE)
    yield file
    sys.modules.pop("own_code", None)


def test_where_their_numbers_go(code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    config = Config.model_validate({**SMALL, "run_dir": str(root), "engine": "inline"})
    for stage in ("prepare", "train", "evaluate"):
        assert run_command(config, stage) == 0
    assert "spread of" in capsys.readouterr().out
    found = Evaluated.read(Location.of(root / "evaluate/metrics.json"))
    (own,) = found.own
    assert (own.name, own.title, own.better) == ("spread", "spread of features", "more")
    for name, folder in {"baseline": "baseline", "test": "test"}.items():
        table = pads.dataset(root / f"features/{folder}/parts").to_table()
        features = np.array(table["features"].to_pylist(), np.float32)
        assert found.sets[name].value("spread") == pytest.approx(features.std(), rel=1e-5)
    assert found.extractor.name == "own_code:Means"
    drawn = pads.dataset(root / "drawn/train/images").to_table().sort_by("key")
    np.testing.assert_array_equal(np.array(drawn["z"].to_pylist(), np.float32), np.float32(2 * noise(4, 0, 10, 0)[1]))
    sampled = json.loads((root / "drawn/train/manifest.json").read_text())["stages"]["sample"]
    assert (sampled["prior"], sampled["sentence"]) == ("own_code:Twice", "N(0, 4 I)")
    entry = json.loads((root / "manifest.json").read_text())["stages"]["evaluate"]
    assert entry["sets"]["baseline"]["spread"] == {"value": found.sets["baseline"].value("spread")}  # so for MLflow
    page = read_evaluation(RunDir(Location.of(root)), IMAGES)
    assert page is not None
    assert page.measures[-1].title == "spread of features"

    assert run_command(config, "evaluate") == 0
    assert "already complete" in capsys.readouterr().out
    code.write_text(CODE.replace("sample.features.std()", "2 * sample.features.std()"))
    sys.modules.pop("own_code")
    assert run_command(config, "evaluate") == 0
    again = Evaluated.read(Location.of(root / "evaluate/metrics.json"))
    assert again.sets["baseline"].value("spread") == pytest.approx(2 * found.sets["baseline"].value("spread"))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("setting", "stage", "code"),
    [
        ("score.sigma.rule", "score", "from ldsaug_ray.lds import SigmaRule\nmine = SigmaRule({}, None, None)"),
        ("select.which", "select", "from ldsaug_ray.selection import Rule\nmine = Rule()"),
        ("select.rank", "select", "from ldsaug_ray.selection import Rank\nmine = Rank(max, 'the most')"),
        ("select.balance", "select", "from ldsaug_ray.selection import Balance\nmine = Balance(max)"),
    ],
)
def test_a_changed_file_outdates_the_stage_and_the_run(setting: str, stage: str, code: str, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / f"its_{setting.rpartition('.')[2]}.py"
    file.write_text(code)
    given = [f"{setting}={file.stem}:mine", "run_dir=r", "data.source=s"]
    found = []
    for text in (code, code, f"{code}\n"):
        file.write_text(text)
        config = load_config(None, given)
        prints = {name: STAGES[name].fingerprint(config, {}) for name in ("train", "score", "select")}
        found.append((prints.pop(stage), identity(config), prints))
    assert found[0] == found[1]
    assert found[1][2] == found[2][2]
    assert found[1][0] != found[2][0]
    assert found[1][1] != found[2][1]


def test_what_is_wrong_is_said_before_work_starts(code: Path, tmp_path: Path) -> None:
    def run(**evaluate: object) -> None:
        settings = {**SMALL, "run_dir": str(tmp_path / "run"), "engine": "inline"}
        settings["evaluate"] = {**SMALL["evaluate"], **evaluate}
        run_command(Config.model_validate(settings), "run")

    for path, why in {
        "own_code:Nothing": "has no 'Nothing'",
        "nowhere:Spread": "there is no module 'nowhere'",
        "own_code:spread": "is no AnyMeasure but function",
    }.items():
        with pytest.raises(ConfigError, match=rf"evaluate\.measures: .*{why}"):
            run(measures=[path])
    with pytest.raises(ValueError, match="there is no module 'nowhere'"):
        run(extractor="nowhere:Means")
    assert not (tmp_path / "run/images").exists()
