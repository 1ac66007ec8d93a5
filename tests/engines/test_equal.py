"""Engines change no result: whole pipelines leave the same digests under `inline` and under `ray`, with one worker and
with two.

Training is left at one rank here. With two it is another training, as it is under Ray alone: each rank draws noise of
its own for its half of a batch, and their gradients are summed in another order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from stages_helpers import Tree, digests, merge, script

from ldsaug_ray.cli import main
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.commands.sample import sample_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.search.trials import read_trials

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

ENGINES = {"inline": ("inline", 1), "ray": ("ray", 1), "ray with two workers": ("ray", 2)}
POOLS = ("data", "encode", "score", "decode", "sample", "evaluate")
Under = Callable[..., Tree]


@pytest.fixture
def under(copied: Tree, tmp_path: Path) -> Under:
    """under(engine, changes, anew=stages, of=None) -> settings of a copy of the finished run, or another, without these
    stages."""

    def make(name: str, changes: Tree, anew: tuple[str, ...] = (), of: Tree | None = None) -> Tree:
        engine, count = ENGINES[name]
        folder = tmp_path / name.replace(" ", "-")
        shutil.copytree((of or copied)["run_dir"], folder)
        for stage in anew:
            RunDir(Location.of(folder)).reset(stage)
        pools = {section: {"workers": {"count": count}} for section in POOLS}
        return merge(merge(merge(copied, pools), {"engine": engine, "run_dir": str(folder)}), changes)

    return make


@pytest.fixture
def network(tmp_path: Path) -> str:
    """An extractor that is quick."""
    return script(tmp_path / "colours.pt")


def run(settings: Tree, *commands: str) -> None:
    for command in commands:
        assert run_command(Config.model_validate(settings), command) == 0


def test_the_plan_of_blocks_and_every_rule_of_selection(under):
    rules = {
        "random": {"which": "random"},
        "typical": {"which": "typical", "typical": 0.5, "top_fraction": None, "top_count": None},
        "lds+sharpness": {"which": "lds+sharpness"},
        "lds": {"which": "lds", "exclude_parents": True},
        "none": {"which": "none", "top_count": None},
    }
    found = []
    for name in ("inline", "ray with two workers"):
        settings = under(name, {"score": {"plan": "blocks", "block": [5, 6], "n_candidates": 1080}})
        run(settings, "score")
        made = {"score": digests(settings)["score"]}
        for rule, select in rules.items():
            chosen = merge(settings, {"select": {"top_count": 70, **select}, "decode": {"sharpest": 0.5}})
            run(chosen, "select", "decode")
            made |= {f"{rule}, {stage}": digests(chosen)[stage] for stage in ("select", "decode")}
        found.append(made)
    assert len(set(found[0].values())) == len(found[0]) - 1  # of no rows, none's two are alike
    assert found[0] == found[1]


ADVERSARIAL = {"adversarial": {"weight": 0.5, "r1_every": 2, "path_length": 0.1, "path_length_every": 2}}
ALONE = {
    "pixels": {},
    "adversarial": {"uses": {"pixels": 0, "adversarial": 0.5}, "objective": ADVERSARIAL},
    "cycle": {"uses": {"pixels": 0, "cycle": 0.5}},
    "prior": {"uses": {"pixels": 0, "prior": True}},
}
AT_ONCE = {
    "uses": {"pixels": 0.5, "adversarial": 0.5, "cycle": 0.1, "prior": True},
    "objective": ADVERSARIAL,
    "lds_weight": 0.5,
}
FEW = {"steps": 3, "mixing": 0.5}
PRIORS = [("train", "normal"), ("finetune", "mixture"), ("finetune", "kde")]


def drawn(settings: Tree, out: Path) -> Tree:
    """Digests of samples from every density, of latents alone and with A."""
    found = {}
    for model, prior in PRIORS:
        folder = out / f"{model}-{prior}"
        asked = {"n": 20, "part_rows": 8, "model": model, "prior": prior, "components": 2, "out": str(folder)}
        assert sample_command(Config.model_validate(merge(settings, {"sample": asked}))) == 0
        found[prior] = json.loads((folder / "manifest.json").read_text())["stages"]["sample"]["digest"]
    return found


def test_whole_pipelines(under, finished, network, tmp_path):
    """All stages from images to the report, and samples; the random plan, the paper's selection, all uses of A."""
    changes = {"evaluate": {"extractor": network, "n": 20, "k": 3}, "finetune": {**FEW, **AT_ONCE}}
    before = ("prepare", "encode", "score", "select", "decode")
    found, inline = [], None
    for name, stages in zip(ENGINES, ((), (*before, "train", "finetune"), before), strict=True):
        settings = under(name, changes, stages, of=inline)
        run(settings, "run")
        inline = inline or settings
        found.append(digests(settings) | drawn(settings, tmp_path / "drawn" / name))
    assert found[0].keys() == {*before, "train", "finetune", "evaluate", "report", *(prior for _, prior in PRIORS)}
    assert {stage: found[0][stage] for stage in (*before, "train")} == {
        stage: digests(finished.settings)[stage] for stage in (*before, "train")
    }
    assert len(set(found[0].values())) == len(found[0])
    assert found[0] == found[1] == found[2]


@pytest.mark.cluster
@pytest.mark.parametrize("use", ALONE)
def test_what_a_is_used_for(under, tmp_path, use):
    """One use alone; all at once are in the whole pipelines above."""
    found = []
    for name in ("inline", "ray with two workers"):
        settings = under(name, {"finetune": {**FEW, **ALONE[use]}})
        run(settings, "finetune")
        samples = drawn(settings, tmp_path / "drawn" / name) if use == "prior" else {}
        found.append({"finetune": digests(settings)["finetune"], **samples})
    assert len(set(found[0].values())) == len(found[0])
    assert found[0] == found[1]


def trials_of(settings: Tree, asked: Tree, tmp_path: Path) -> list[tuple]:
    """What a search came to: of each trial its point, state and measures."""
    file = tmp_path / "tune.yaml"
    file.write_text(yaml.safe_dump({**settings, "tune": asked}))
    assert main(["tune", str(file)]) == 0
    root = Path(settings["run_dir"])
    trials = read_trials(Location.of(root))
    return sorted((t.key, t.state, t.measures, t.curve) for t in trials)


def test_a_search_without_training(under, tmp_path):
    asked = {
        "space": {"score.sigma.scale": [0.2, 0.5], "select.top_fraction": [0.1, 0.5]},
        "objectives": [{"a_nearer": 1.0, "a_likelihood": 0.5}],
        "search": "grid",
    }
    changes = {"score": {"n_candidates": 450, "sigma": {}}}
    one, other = (trials_of(under(name, changes), asked, tmp_path) for name in ("inline", "ray with two workers"))
    assert [state for _, state, *_ in one] == ["finished"] * 4
    assert one == other


@pytest.mark.cluster
def test_an_experiment(copied, tmp_path, network):
    """Its numbers, to the last bit, are those of its arms."""
    found = []
    for engine in ("inline", "ray"):
        changes = {
            "engine": engine,
            "run_dir": str(tmp_path / engine),
            "score": {"n_candidates": 270},
            "finetune": {"steps": 3},
            "evaluate": {"extractor": network, "n": 20, "k": 3},
            "experiment": {"arms": {"lds": {}}, "seeds": [1], "train": [30]},
        }
        file = tmp_path / "experiment.yaml"
        file.write_text(yaml.safe_dump(merge(copied, changes)))
        assert main(["experiment", str(file)]) == 0
        arms = [digests({"run_dir": str(tmp_path / engine / f"arms/{arm}/n30-seed1")}) for arm in ("baseline", "lds")]
        found.append((arms, (tmp_path / engine / "experiment/results.csv").read_text()))
    assert "finetune" in found[0][0][1]
    assert found[0] == found[1]
