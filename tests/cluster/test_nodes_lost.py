"""Several Ray nodes on this machine: latents replicated and sharded; nodes that are lost in the middle of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from cluster_helpers import ended, last_step, manifest, markers, results
from heads import Hosts, full_stores
from ray.cluster_utils import Cluster
from stages_helpers import Tree, merge, start, until

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs and two worker nodes with one each; commands of this test attach to it."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2 * 10**8})
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=10**8)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    nodes.shutdown()


def scored(
    settings: Tree, placement: str, save, tmp_path: Path, meanwhile: Callable[..., None] = lambda _: None
) -> Tree:
    """`ldsaug score` from the start; its entry in the manifest."""
    RunDir(Location.of(settings["run_dir"])).reset("score")
    command = start("score", save(merge(settings, {"score": {"placement": placement}})), cwd=tmp_path)
    meanwhile(command)
    ended(command)
    return manifest(settings)["score"]


def test_latents_replicated_or_sharded_or_a_node_lost_the_scores_are_the_same(copied, cluster, save, tmp_path):
    score = {"n_candidates": 3600, "part_candidates": 36, "shard_latents": 10, "workers": {"count": "auto"}}
    settings = merge(copied, {"score": score})
    progress = Path(copied["run_dir"]) / "_progress/score"

    def lose_a_node(command: Popen[str]) -> None:
        until(lambda: len(list(progress.glob("*.unit.json"))) >= 10, command)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=10**8)

    sharded = scored(settings, "sharded", save, tmp_path, lose_a_node)
    with full_stores(cluster.address) as spilled:
        replicated = scored(settings, "replicated", save, tmp_path)
        assert spilled() > 0
    assert (replicated["placement"], sharded["placement"]) == ("replicated", "sharded")
    assert replicated["shards"] == sharded["shards"] == 5
    undisturbed = scored({**settings, "engine": "inline"}, "replicated", save, tmp_path)
    assert sharded["digest"] == replicated["digest"] == undisturbed["digest"]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """A head and two hosts with addresses of their own; commands of this test attach to them."""
    if not Hosts.possible():
        pytest.skip("network namespaces cannot be made here: that takes root, and the command ip")
    made = Hosts(tmp_path)
    try:
        for _ in range(2):
            made.add()
        made.head.attach(monkeypatch)
        yield made
    finally:
        made.stop()


def test_an_actor_dies_then_a_host_in_encode_score_and_finetune(encodes, undisturbed, hosts, save, tmp_path):
    run = RunDir(Location.of(encodes["run_dir"]))
    both = {"workers": {"count": 2}}
    settings = merge(encodes, {"encode": both, "score": both, "finetune": {"max_failures": 5}})
    command = start("run", save(settings), cwd=tmp_path)
    reached: dict[str, tuple[str, Callable[[], bool]]] = {
        "encode": ("UnitActor", (run.root / "_progress/encode/started.json").exists),  # its few units are done at once
        "score": ("UnitActor", lambda: markers(settings, "score") >= 20),
        "finetune": ("RayTrainWorker", lambda: last_step(settings) >= 6),
    }
    done: dict[str, int] = {}
    actors = 0
    for stage, (actor, when) in reached.items():
        if stage == "score":
            until(lambda: markers(settings, "score") >= 5 and hosts.where("UnitActor"), command)
            actors = hosts.kill(hosts.where(actor)[0], actor)
        until(lambda actor=actor, when=when: when() and hosts.where(actor), command)
        hosts.lose(hosts.where(actor)[0])
        done[stage] = markers(settings, stage)
        assert stage not in manifest(settings), f"{stage} was over before a host could be lost"
        hosts.add()
    ended(command)
    assert actors == 1
    assert done["encode"] < len(RunDir(run.root).finished_units("encode"))
    assert 20 <= done["score"] < 250
    assert manifest(settings)["finetune"]["resumed_from_step"] >= 6
    assert results(settings) == results(undisturbed)
