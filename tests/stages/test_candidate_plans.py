"""Noisy candidates, neighbours' pairs and single latents in all stages: recomputed from (seed, id) everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import yaml
from scipy.special import logsumexp
from stages_helpers import Tree, digests, manifest, merge

from ldsaug_ray.cli import main
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.columns import matrix
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.lds import Noise, interpolate
from ldsaug_ray.report import gather, report_page
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.search.proxies import Prepared


def table(settings: Tree, folder: str) -> pa.Table:
    return pads.dataset(Path(settings["run_dir"]) / folder, format="parquet").to_table().sort_by("candidate")


def run(settings: Tree, *commands: str) -> None:
    for command in commands:
        assert run_command(Config.model_validate(settings), command) == 0


@pytest.mark.parametrize("plan", ["neighbours", "single"])
def test_noisy_candidates_are_the_same_points_in_every_stage(copied, capsys, plan):
    score = {"plan": plan, "noise": 0.5, "neighbours": 4, "n_candidates": 900, "part_candidates": 90}
    settings = merge(copied, {"score": score, "select": {"balance": "parent"}})
    config = Config.model_validate(settings)
    assert run_command(config, "score", dry_run=True) == 0
    assert "score.noise: a row of the matrix product for each of 900 candidates" in capsys.readouterr().out
    run(settings, "score", "select", "decode")
    scored = manifest(settings)["score"]
    latents = read_latents(RunDir(Location.of(settings["run_dir"])), "train")
    z = latents.z.astype(np.float64)
    gaps = np.linalg.norm(z[:, None] - z, axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert scored["noise_radius"] == pytest.approx(0.5 * np.median(gaps.min(axis=1)), rel=1e-6)
    rows = table(settings, "scores")
    ids, alpha = rows["candidate"].to_numpy(), rows["alpha"].to_numpy()
    i, j = latents.rows(rows["parent_i"]), latents.rows(rows["parent_j"])
    assert ids.tolist() == list(range(900))
    if plan == "single":
        assert (i == j).all()
        assert sorted(set(np.bincount(i).tolist())) == [20, 21]
    else:
        ranks = np.argsort(np.argsort(gaps, axis=1), axis=1)
        assert (np.minimum(ranks[i, j], ranks[j, i]) < 4).all()
    noise = Noise(scored["noise_radius"], 0)
    points = interpolate(latents.z, i, j, alpha, "linear", noise, ids).astype(np.float64)
    x = -(np.linalg.norm(points[:, None] - z, axis=2) ** 2) / (2 * scored["sigma"] ** 2)
    np.testing.assert_allclose(rows["log_lds"].to_numpy(), logsumexp(x, axis=1) - np.log(44), atol=1e-4)
    x[np.arange(900), i] = x[np.arange(900), j] = -np.inf
    others = rows["log_lds_excluding_parents"].to_numpy()
    np.testing.assert_allclose(others, logsumexp(x, axis=1) - np.log(44), atol=1e-4)

    made = table(settings, "augmented")
    assert len(made) == 180
    assert (matrix(made["z"]) == points.astype(np.float32)[made["candidate"].to_numpy()]).all()
    assert "group of balance = parent" in report_page(gather(open_run_dir(config, create=False), config))

    known = digests(settings)
    RunDir(Location.of(settings["run_dir"])).reset("score")
    run(merge(settings, {"score": {"placement": "sharded"}}), "score", "select")
    assert [digests(settings)[stage] for stage in ("score", "select")] == [known[s] for s in ("score", "select")]


def test_a_search_over_noise_and_balance_takes_what_a_run_takes(copied, tmp_path, monkeypatch):
    """Trials without training choose as stage `select` does, and measure the points that it would decode."""
    measured = {}

    def spy(prepared, chosen, interpolation, names, noise, images):
        measured[len(measured)] = (chosen, noise)
        return {}

    monkeypatch.setattr(Prepared, "measures_of", spy)
    score = {"plan": "neighbours", "neighbours": 4, "n_candidates": 900, "part_candidates": 90}
    space = {"score.noise": [0.0, 0.5], "select.balance": ["none", "parent"]}
    settings = merge(
        copied,
        {"score": score, "tune": {"space": space, "objectives": [{"a_nearer": 1.0}], "search": "grid"}},
    )
    file = tmp_path / "tune.yaml"
    file.write_text(yaml.safe_dump(settings))
    main(["tune", str(file)])
    assert len(measured) == 4
    for noise in (0.0, 0.5):
        for balance in ("none", "parent"):
            one = merge(settings, {"score": {"noise": noise}, "select": {"balance": balance}})
            run(one, "score", "select")
            rows = table(one, "selected")["candidate"].to_pylist()
            radius = manifest(one)["score"].get("noise_radius")
            mine = [c for c, n in measured.values() if c.id.tolist() == rows and (n.radius if n else None) == radius]
            assert len(mine) == 1
