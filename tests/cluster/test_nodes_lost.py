"""Several Ray nodes on this machine: latents replicated and sharded; nodes that are lost in the middle of a stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from heads import Hosts, full_stores
from ray.cluster_utils import Cluster
from stages_helpers import Tree, manifest, merge, start
from test_kill import checkpoints, markers

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import RunDir

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs and two worker nodes with one each; commands of this test attach to it."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2 * 10**8})
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=10**8)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    nodes.shutdown()


def scored(settings: Tree, placement: str, save, tmp_path: Path, meanwhile: Callable[[], None] = lambda: None) -> Tree:
    """`ldsaug score` from the start; its entry in the manifest."""
    RunDir(Location.of(settings["run_dir"])).reset("score")
    command = start("score", save(merge(settings, {"score": {"placement": placement}})), cwd=tmp_path)
    meanwhile()
    output = command.communicate()[0]
    assert command.returncode == 0, output
    return manifest(settings)["score"]


def test_latents_replicated_or_sharded_or_a_node_lost_the_scores_are_the_same(copied, cluster, save, tmp_path):
    score = {"n_candidates": 3600, "part_candidates": 36, "shard_latents": 10, "workers": {"count": "auto"}}
    settings = merge(copied, {"score": score})
    progress = Path(copied["run_dir"]) / "_progress/score"

    def lose_a_node() -> None:
        tick = threading.Event()
        while len(list(progress.glob("*.unit.json"))) < 10:
            tick.wait(0.02)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=10**8)

    replicated = scored(settings, "replicated", save, tmp_path)
    sharded = scored(settings, "sharded", save, tmp_path)
    assert (replicated["placement"], sharded["placement"]) == ("replicated", "sharded")
    assert replicated["shards"] == sharded["shards"] == 5
    assert sharded["digest"] == replicated["digest"]
    assert scored(settings, "sharded", save, tmp_path, lose_a_node)["digest"] == replicated["digest"]
    with full_stores(cluster.address) as spilled:
        assert scored(settings, "replicated", save, tmp_path)["digest"] == replicated["digest"]
        assert spilled() > 0


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """A head and two hosts with addresses of their own; commands of this test attach to them."""
    if not Hosts.possible():
        pytest.skip("network namespaces cannot be made here: that takes root, and the command ip")
    made = Hosts(tmp_path)
    try:
        for _ in range(2):
            made.add()
        monkeypatch.setenv("RAY_ADDRESS", made.head.address)
        yield made
    finally:
        made.stop()


def test_an_actor_dies_then_a_host_in_encode_score_and_finetune(copied, finished, hosts, save, tmp_path):
    run = RunDir(Location.of(copied["run_dir"]))
    for stage in ("encode", "score", "select", "decode", "finetune", "report"):
        run.reset(stage)
    both = {"workers": {"count": 2}}
    settings = merge(copied, {"encode": both, "score": both, "finetune": {"max_failures": 5}})
    command = start("run", save(settings), cwd=tmp_path)
    reached: dict[str, tuple[str, Callable[[], bool]]] = {
        "encode": ("_UnitActor", (run.root / "_progress/encode/started.json").exists),  # its few units are done at once
        "score": ("_UnitActor", lambda: markers(settings, "score") >= 20),
        "finetune": ("RayTrainWorker", lambda: checkpoints(settings, "finetune") >= 2),
    }
    tick = threading.Event()
    done: dict[str, int] = {}
    actors = 0
    for stage, (actor, when) in reached.items():
        while not (when() and hosts.where(actor)):
            assert command.poll() is None, command.communicate()[0]
            assert stage not in manifest(settings), f"{stage} was over before a host could be lost"
            if stage == "score" and not actors and markers(settings, "score") >= 5:
                actors = hosts.kill(hosts.where(actor)[0], actor)
            tick.wait(0.01)
        hosts.lose(hosts.where(actor)[0])
        done[stage] = markers(settings, stage)
        assert stage not in manifest(settings)
        hosts.add()
    output = command.communicate()[0]
    assert command.returncode == 0, output
    assert actors == 1
    assert done["encode"] < len(RunDir(run.root).finished_units("encode"))
    assert 20 <= done["score"] < 250
    calm = manifest(finished.settings)
    assert manifest(settings)["finetune"]["resumed_from_step"] >= 3
    for stage, entry in manifest(settings).items():
        for count in ("rows_in", "rows_out", "rows_dropped", "rows_quarantined"):
            assert entry[count] == calm[stage][count], (stage, count)
        assert entry["digest"] == calm[stage]["digest"] or stage == "report", stage


def test_blocks_and_a_budget(copied):
    blocks = {"n_candidates": 900, "shard_latents": 10, "plan": "blocks", "block": [6, 8], "latents_gb": 1e-7}
    settings = merge(copied, {"score": blocks})
    assert run_command(Config.model_validate(settings), "score") == 0
    sharded = manifest(settings)["score"]
    assert (sharded["placement"], sharded["rows_out"]) == ("sharded", 900)  # 44 latents are more than 100 bytes
    scores = pq.read_table(Path(settings["run_dir"]) / "scores")
    assert scores["candidate"].to_pylist() == list(range(900))
    assert [len(set(scores["parent_i"].to_pylist()[n : n + 432])) for n in (0, 432)] == [6, 6]
    RunDir(Location.of(settings["run_dir"])).reset("score")
    assert run_command(Config.model_validate(merge(settings, {"score": {"latents_gb": "auto"}})), "score") == 0
    replicated = manifest(settings)["score"]
    assert (replicated["placement"], replicated["digest"]) == ("replicated", sharded["digest"])
