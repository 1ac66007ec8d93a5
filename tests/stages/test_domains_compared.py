"""Searches, experiments, the frontier and the explorer on molecules and clips: the same commands, in their words."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from stages_helpers import Tree, copy_of, merge, of_domain

from ldsaug_ray.cli import main
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains import DOMAINS as KINDS
from ldsaug_ray.search.trials import read_trials

SHOWN = {"molecules": "<svg", "audio": "<audio"}


@pytest.fixture(scope="module", params=SHOWN)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    settings = of_domain(request.param, tmp_path_factory.mktemp(request.param))
    assert run_command(build_config(settings, []), "run") == 0
    return settings


@pytest.fixture
def copied(finished: Tree, tmp_path: Path) -> Tree:
    return copy_of(finished, tmp_path)


@pytest.fixture
def told(save: Callable[[Tree], Path], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """told(command, settings): what the command prints, which ends well and speaks of no images."""

    def run(command: str, settings: Tree) -> str:
        assert main([command, str(save(settings))]) == 0, capsys.readouterr().err
        output = capsys.readouterr().out
        assert not re.search(r"\bimages?\b", output), output
        return output

    return run


def test_the_frontier(copied: Tree, told) -> None:
    assert "interpolants" in told("frontier", merge(copied, {"frontier": {"n": 20, "noise": [0.5, 2]}}))
    rows = list(csv.DictReader((Path(copied["run_dir"]) / "frontier/frontier.csv").read_text().splitlines()))
    assert {"noise 2", "N(0, I)", "A", "balanced"} <= {row["name"] for row in rows}


def test_a_search_of_what_is_decoded(copied: Tree, told) -> None:
    asked = {
        "space": {"score.sigma.scale": [0.2, 0.5], "select.top_fraction": [0.1, 0.5]},
        "objectives": [{"a_frechet": 1.0}, {"a_nearer": 1.0}],
        "search": "grid",
    }
    changes = {"select": {"top_count": None}, "frontier": {"n": 30}, "tune": asked}
    assert "of 4 trials" in told("tune", merge(copied, changes))
    trials = read_trials(Location.of(copied["run_dir"]))
    assert [t.state for t in trials] == ["finished"] * 4
    assert all(t.measures["a_frechet"] is not None for t in trials)


def test_a_sample(copied: Tree, told, tmp_path: Path) -> None:
    output = told("sample", merge(copied, {"sample": {"n": 20, "prior": "normal", "out": str(tmp_path / "out")}}))
    assert f"{KINDS.get(copied['domain']).unit}/s" in output


@pytest.mark.cluster
def test_a_search_with_training(copied: Tree, told) -> None:
    asked = {"space": {"select.top_fraction": [0.1, 0.5]}, "objectives": [{"frechet": 1.0}], "search": "grid"}
    assert "of 2 trials" in told("tune", merge(copied, {"select": {"top_count": None}, "tune": asked}))
    assert [t.state for t in read_trials(Location.of(copied["run_dir"]))] == ["finished"] * 2


@pytest.mark.cluster
def test_an_experiment(copied: Tree, told, tmp_path: Path) -> None:
    arms = {"lds": {}, "none": {"settings": {"select.which": "none", "finetune.mixing": None}}}
    asked = {"arms": arms, "control": "none", "seeds": [1]}
    told("experiment", merge({**copied, "run_dir": str(tmp_path / "arms")}, {"experiment": asked}))
    rows = list(csv.DictReader((tmp_path / "arms/experiment/results.csv").read_text().splitlines()))
    kind = KINDS.get(copied["domain"])
    assert f"training {kind.unit}" in {row["arm"] for row in rows}
    assert [row["arm"] for row in rows][:3] == ["baseline", "lds", "none"]
    page = (tmp_path / "arms/experiment/index.html").read_text()
    assert SHOWN[copied["domain"]] in page
    assert f"training {kind.unit}" in page


def test_the_explorer_shows_items(finished: Tree) -> None:
    page = (Path(finished["run_dir"]) / "report/index.html").read_text()
    shown = json.loads(re.search(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)[1])["shown"]
    tiles = re.findall(r'<li data-k="\d+" data-candidate="\d+" hidden>(.*?)</li>', page, re.DOTALL)
    assert len(tiles) == len(shown) > 20
    assert all(SHOWN[finished["domain"]] in tile or "no molecule: <code>" in tile for tile in tiles)
