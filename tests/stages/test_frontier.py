"""`ldsaug frontier` on the tiny run: what is compared, kept, and said; and gains against their definition."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from scipy.spatial.distance import cdist
from stages_helpers import Tree, manifest, merge, script

from ldsaug_ray.commands.frontier import frontier_command
from ldsaug_ray.config import Config, Select
from ldsaug_ray.errors import ConfigError, ImpossibleError, MissingStageError
from ldsaug_ray.metrics import Sample, frechet_distance, prdc
from ldsaug_ray.run.tracking import tracking_uri
from ldsaug_ray.stages.frontier import compared
from ldsaug_ray.stages.shared.gains import FROM_IMAGES, FROM_RECONSTRUCTIONS, Point, authenticity_by, gains, point_of

OWN = {"random": {"which": "random", "top_fraction": 0.1}, "least": {"top_count": 25}}
RNG = np.random.default_rng(0)


def point(name: str, authenticity: float, frechet: float, spread: float = 0.0, by: str = FROM_IMAGES) -> Point:
    values = {FROM_IMAGES: authenticity, FROM_RECONSTRUCTIONS: authenticity, "frechet": frechet, "precision": 0.5}
    values["coverage"] = 0.8
    redrawn = {k: v + spread * RNG.normal(size=1000) for k, v in values.items()}
    return Point(name, values, redrawn)


CURVE = [point("0", 10, 20), point("1", 50, 100), point("2", 30, 40)]


@pytest.mark.parametrize(
    ("authenticity", "frechet", "curve", "gain"),
    [(20, 15, 30, 0.5), (40, 70, 70, 0.0), (50, 120, 100, -0.2), (9, 1, None, None), (51, 1, None, None)],
)
def test_a_gain_is_below_the_curve_where_it_is_as_authentic(authenticity, frechet, curve, gain):
    found = gains(point("x", authenticity, frechet), CURVE, FROM_IMAGES)["frechet"]
    if gain is None:
        assert found is None
        return
    assert (found.curve, found.gain) == pytest.approx((curve, gain))
    assert (found.low, found.high) == pytest.approx((gain, gain))


def test_limits_hold_what_draws_scatter():
    found = gains(point("x", 30, 30, spread=1.0), CURVE, FROM_IMAGES)
    redrawn = point("x", 30, 30, spread=1.0).redrawn
    ys = np.interp(redrawn[FROM_IMAGES], [10, 30, 50], [20, 40, 100])
    expected = np.quantile(1 - redrawn["frechet"] / ys, [0.025, 0.975])
    assert (found["frechet"].low, found["frechet"].high) == pytest.approx(tuple(expected), abs=0.03)
    assert found["precision"].gain == 0


def test_authenticity_is_by_what_tells_more():
    assert authenticity_by(CURVE) == FROM_IMAGES  # both spread alike
    blurred = [Point(p.name, {**p.values, FROM_IMAGES: 95 + p.values[FROM_IMAGES] / 50}, p.redrawn) for p in CURVE]
    assert authenticity_by(blurred) == FROM_RECONSTRUCTIONS


def test_a_point_is_what_the_measures_say():
    test, train, blurred, fake = (RNG.normal(size=(n, 4)).astype(np.float32) for n in (80, 90, 70, 60))
    found = point_of("x", Sample(fake, test, train, k=3, seed=1), blurred, 5)
    assert found.values["frechet"] == pytest.approx(frechet_distance(fake, test))
    assert found.values["coverage"] == prdc(test, fake, 3).coverage
    assert found.values["density"] == prdc(test, fake, 3).density
    assert "kernel_distance" in found.values
    for by, near in ((FROM_IMAGES, train), (FROM_RECONSTRUCTIONS, blurred)):
        distances, own = cdist(fake, near), np.sort(cdist(near, near), axis=1)[:, 1]
        assert found.values[by] == pytest.approx(100 * (distances.min(1) > own[distances.argmin(1)]).mean())
    p = found.values[FROM_IMAGES] / 100
    assert found.redrawn[FROM_IMAGES].std() == pytest.approx(100 * (p * (1 - p) / 60) ** 0.5, rel=0.15)


def test_rules_and_samplers_of_a_run(copied: Tree, tmp_path: Path, capsys, mlflow_there: None):
    folder = Path(copied["run_dir"]) / "frontier"
    given = {
        "evaluate": {"extractor": script(tmp_path / "colours.pt"), "k": 3},
        "frontier": {
            "n": 30,
            "noise": [0.5, 2],
            "rules": OWN,
        },
        "tracking": {"enabled": True},
    }
    settings = merge(copied, given)
    assert frontier_command(Config.model_validate(settings)) == 0
    shown = capsys.readouterr().out
    told = json.loads((folder / "frontier.json").read_text())
    points = {row["name"]: row for row in told["points"]}
    samplers = ["N(0, I)", "interpolants", "neighbours", "LDS of noise"]
    assert list(points) == ["reconstructions", "noise 0.5", "noise 2", *samplers, "A", "random", "balanced", "least"]
    assert [points[name]["kind"] for name in ("noise 2", "LDS of noise", "A")] == ["curve", "sampler", "rule"]
    assert {row["n"] for row in points.values()} == {30, 25}
    assert points["reconstructions"][FROM_RECONSTRUCTIONS] == 0  # each is its own nearest
    of_train = manifest(settings)["select"]["modes"]["clusters"]["train"]
    assert points["reconstructions"]["modes"]["clusters"] == pytest.approx(of_train)
    page = (folder.parent / "report/index.html").read_text()
    assert all(f'<th scope="row" class="one">{name}</th>' in page for name in points)
    assert all(name in shown for name in points)
    rows = list(csv.DictReader((folder / "frontier.csv").read_text().splitlines()))
    assert [float(row["frechet"]) for row in rows] == [points[row["name"]]["frechet"] for row in rows]
    assert (folder / "frontier.svg").read_bytes().startswith(b"<svg")
    client = MlflowClient(tracking_uri())
    (sent,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert sent.data.metrics["frontier/points.least.frechet"] == points["least"]["frechet"]
    assert {"frontier/frontier.svg", "frontier/frontier.csv"} <= {
        file.path for file in client.list_artifacts(sent.info.run_id, "frontier")
    }
    before = {file: file.stat().st_mtime_ns for file in (folder.parent / "features").glob("*/manifest.json")}
    assert len(before) == 13
    assert frontier_command(Config.model_validate(settings)) == 0  # complete
    more = merge(settings, {"frontier": {"rules": {"without": {"exclude_parents": True}}}})
    assert frontier_command(Config.model_validate(more)) == 0
    after = {file: file.stat().st_mtime_ns for file in (folder.parent / "features").glob("*/manifest.json")}
    assert {k: after[k] for k in before} == before  # features of the others were kept
    assert len(after) == 14
    page = (folder.parent / "report/index.html").read_text()
    other = merge(more, {"select": {"balance": "parent"}})  # not what the run selected by
    assert frontier_command(Config.model_validate(other)) == 0
    assert (folder.parent / "report/index.html").read_text() == page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rules": {"x": {"top_fractoin": 1}}}, r"frontier.rules: x: top_fractoin"),
        (
            {"rules": {"x": {"score.sigma.scale": 0.4}}},
            r"rules: x: score.sigma.scale is unknown \(rules go by the scores at hand, of one sigma\); possible: which",
        ),
        ({"rules": {"x": {"which": "none"}}}, r"frontier.rules: x: which: none keeps nothing"),
        ({"rules": {"x": {"balance": "cluster", "clusters": 45}}}, r"select.clusters = 45 cells of 44"),
        ({"samplers": {"x": {"prior": "kdf"}}}, r"frontier.samplers: x: prior: .*kdf"),
    ],
)
def test_a_wrong_rule_or_sampler_is_named(copied: Tree, tmp_path: Path, changes, words):
    evaluate = {"extractor": script(tmp_path / "colours.pt"), "k": 3}
    settings = merge(copied, {"evaluate": evaluate, "frontier": {"n": 30, **changes}})
    for dry_run in (True, False):
        with pytest.raises((ConfigError, ImpossibleError), match=words):
            frontier_command(Config.model_validate(settings), dry_run=dry_run)


@pytest.mark.parametrize(
    ("select", "rules"),
    [
        ({"which": "none"}, ["random", "balanced"]),
        ({"tau": 0.1, "top_fraction": None}, ["A", "random", "balanced"]),
        ({"which": "random"}, ["A", "random", "balanced"]),
    ],
)
def test_any_run_has_a_balanced_rule_to_compare_with(copied: Tree, select, rules):
    config = Config.model_validate(merge(copied, {"select": select}))
    found, _ = compared(config)
    assert list(found) == rules
    balanced = Select.model_validate({**config.select.model_dump(exclude_unset=True), **found["balanced"]})
    assert (balanced.which, balanced.balance, balanced.tau, balanced.top_fraction) == ("lds", "parent", None, 0.2)


def test_names_must_differ_and_scores_must_be_there(tree: Tree, tmp_path: Path):
    with pytest.raises(ValueError, match=r"names that differ .* 'a' twice"):
        Config.model_validate(merge(tree, {"frontier": {"rules": {"a": {}}}}))
    with pytest.raises(ValueError, match=r"noise of the curve .* 'noise-0.5' twice"):
        Config.model_validate(merge(tree, {"frontier": {"samplers": {"Noise 0.5": {}}, "noise": [0.5, 1]}}))
    with pytest.raises(MissingStageError):
        frontier_command(Config.model_validate(merge(tree, {"evaluate": {"extractor": script(tmp_path / "c.pt")}})))
