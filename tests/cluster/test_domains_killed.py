"""Rows, molecules and clips: a run that is killed in a training and in decode ends as an undisturbed one does,
and so do the stages of units on two nodes.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_helpers import ended, last_step, manifest, markers, results
from ray.cluster_utils import Cluster
from stages_helpers import DOMAINS, Tree, copy_of, interrupt, merge, of_domain, start

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config.load import build_config
from ldsaug_ray.run.directory import RunDir

pytestmark = pytest.mark.cluster

TWO = {"workers": {"count": 2}}
MORE: Tree = {"train": {"steps": 300}, "score": {"n_candidates": 3600}, "select": {"top_count": 640}}


@pytest.fixture(scope="module", params=DOMAINS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Settings of a whole run of a domain that nothing happened to."""
    settings = merge(of_domain(request.param, tmp_path_factory.mktemp(request.param)), MORE)
    assert run_command(build_config(settings, []), "run") == 0
    return settings


def test_killed_in_train_and_decode(whole: Tree, save, tmp_path: Path) -> None:
    settings = {**whole, "run_dir": str(tmp_path / "run")}
    config = save(settings)
    interrupt(start("run", config, cwd=tmp_path), lambda: last_step(settings, "train") >= 20, signal.SIGKILL)
    assert "train" not in manifest(settings)
    interrupt(start("run", config, cwd=tmp_path), lambda: markers(settings, "decode") >= 2, signal.SIGKILL)
    assert "decode" not in manifest(settings)
    ended(start("run", config, cwd=tmp_path))
    assert manifest(settings)["train"]["resumed_from_step"] >= 20
    assert manifest(settings)["decode"]["rows_resumed"] >= 32
    assert results(settings) == results(whole)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head without CPUs and two nodes with one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2 * 10**8})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=10**8)
    yield cluster
    cluster.shutdown()


def test_two_nodes(whole: Tree, nodes: Cluster, save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the trainings, which read the same again and are complete then."""
    copied = copy_of(whole, tmp_path)
    run = RunDir(Location.of(tmp_path / "run"))
    units = ("encode", "score", "select", "decode", "evaluate")
    for stage in units:
        run.reset(stage)
    for folder in ("features", "drawn"):
        shutil.rmtree(tmp_path / "run" / folder)
    pools = dict.fromkeys(("encode", "score", "decode", "sample", "evaluate"), TWO)
    settings = merge(merge(copied, pools), {"engine": "ray"})
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    ended(start("run", save(settings), cwd=tmp_path))
    assert set(units) < set(manifest(settings))
    assert results(settings) == results(whole)
