"""What a stage gets of a cluster: actors that fit, nodes that are waited for, a word about those that will not do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from heads import TOKEN, Head, autoscaled, is_free
from rich.console import Console
from stages_helpers import manifest, merge, start

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, Workers
from ldsaug_ray.errors import ResourceError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages import _job
from ldsaug_ray.stages.job import Job, pool_for, pool_of

FAKE_PORT = 6379


LAPTOP = {"CPU": 8, "memory": 1e10}
TWO_GPUS = [{"CPU": 4, "GPU": 1}] * 2


@pytest.mark.parametrize(
    ("workers", "nodes", "limit", "found"),
    [
        ({}, [LAPTOP], None, (8, 1, 0)),
        ({"cpus": 3}, [LAPTOP], None, (2, 3, 0)),
        ({}, [LAPTOP], 3, (3, 1, 0)),
        ({"count": 16}, [LAPTOP], 3, (3, 1, 0)),
        ({"count": 3}, [LAPTOP], None, (3, 1, 0)),
        ({"memory_gb": 3}, [LAPTOP], None, (3, 1, 0)),
        ({}, TWO_GPUS, None, (2, 1, 1)),
        ({"gpus": 0.5}, TWO_GPUS, None, (4, 1, 0.5)),
        ({"gpus": 0}, TWO_GPUS, None, (8, 1, 0)),
        ({"cpus": 3}, [{"CPU": 4}, {"CPU": 5}, {}], None, (2, 3, 0)),
    ],
)
def test_a_pool_is_what_fits(workers, nodes, limit, found):
    pool = pool_of(Workers(**workers), "encode", nodes, limit=limit)
    assert (pool.count, pool.cpus, pool.gpus) == found


@pytest.mark.parametrize(
    ("workers", "nodes", "words"),
    [
        ({"count": 9}, [LAPTOP], r"asks for 9 × \(1 CPU\), but .* 8 CPUs, 0 GPUs and 10\.0 GB; .*\(count=8 fits\)"),
        ({"gpus": 1}, [LAPTOP], r"asks for 1 × \(1 CPU, 1 GPU\), but the cluster has 8 CPUs, 0 GPUs"),
        ({"memory_gb": 11}, [LAPTOP], r"asks for 1 × \(1 CPU, 11 GB\)"),
        ({"gpus": 2}, TWO_GPUS, r"asks for 1 × \(1 CPU, 2 GPU\), but the cluster has 8 CPUs, 2 GPUs .* on 2 nodes"),
        ({"cpus": 8}, TWO_GPUS, r"asks for 1 × \(8 CPU, 1 GPU\)"),
    ],
)
def test_what_no_node_has_is_said(workers, nodes, words):
    with pytest.raises(ResourceError, match=words):
        pool_of(Workers(**workers), "encode", nodes)


def test_the_limit_on_waiting_begins_anew_with_each_node_that_comes(copied, monkeypatch):
    now, nodes = [0.0], [[], [{"CPU": 1}], [{"CPU": 1}] * 2, [{"CPU": 1}] * 2]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(_job.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_job, "node_resources", lambda: nodes.pop(0) if len(nodes) > 1 else nodes[0])
    monkeypatch.setattr(_job, "_ask_for", lambda *_: now.__setitem__(0, now[0] + 8 * 60))
    monkeypatch.setattr(_job, "check_nodes", lambda config: None)
    job = Job(Config.model_validate(copied), RunDir(Location.of(copied["run_dir"])), Console(quiet=True))
    assert pool_for(job, Workers(count=2), "encode").count == 2
    with pytest.raises(ResourceError, match=r"count=2 fits.*waited 10 minutes for more nodes"):
        pool_for(job, Workers(count=3), "encode")
    assert now[0] > 16 * 60


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """One node with two CPUs, which wants a token."""
    made = Head(tmp_path, "--num-cpus=2", "--object-store-memory=100000000", token=TOKEN)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, made.environment[name])
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.stop()


@pytest.mark.slow
def test_a_cluster_that_will_not_do(head, copied, save, tmp_path, monkeypatch):
    """GPUs that it has not, after the set time; a wrong token; another Ray; a folder that one node does not see."""
    wanting = merge(copied, {"encode": {"workers": {"gpus": 1}}, "ray": {"wait_minutes": 0.01}})
    process = start("encode", save(merge(wanting, {"encode": {"batch_size": 7}})), cwd=tmp_path)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "the cluster has 2 CPUs, 0 GPUs and" in output
    assert "waiting for nodes, 0.01 minutes at most (ray.wait_minutes)" in output
    assert "error: encode.workers asks for 1 × (1 CPU, 1 GPU)" in output
    assert "Traceback" not in output

    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN[::-1])
    process = start("encode", save(merge(copied, {"encode": {"batch_size": 7}})), cwd=tmp_path)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert f"error: RAY_ADDRESS={head.address}: the cluster does not accept the token" in output
    assert TOKEN[::-1] not in output
    assert "Traceback" not in output
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)

    other = "import ray, sys; ray.__version__ = '2.59.0'; from ldsaug_ray.cli import main; sys.exit(main())"
    settings = save(merge(copied, {"encode": {"batch_size": 7}}))
    refused = subprocess.run([sys.executable, "-c", other, "encode", settings], capture_output=True, text=True)
    assert refused.returncode == 1, refused.stderr
    assert f"error: RAY_ADDRESS={head.address}: this Python is not the cluster's: Version mismatch" in refused.stderr
    assert "Ray: 2.59.0" in refused.stderr
    assert "Traceback" not in refused.stderr

    hidden = f'mount -t tmpfs none {tmp_path / "run"} && exec "$@"'
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here: a node cannot be made to miss a folder")
    head.add_node("--num-cpus=1", "--object-store-memory=100000000", prefix=["unshare", "-m", "sh", "-c", hidden, "-"])
    process = start("encode", save(merge(copied, {"encode": {"batch_size": 7}})), cwd=tmp_path)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert f"error: run_dir {tmp_path / 'run'}: node " in output
    assert "does not see it; on a cluster it must be on storage that every node reaches" in output
    assert not list((tmp_path / "run").glob(".seen*"))


@pytest.mark.slow
def test_nodes_that_an_autoscaler_brings_are_waited_for(copied, save, tmp_path, monkeypatch):
    """As `cluster.yaml` has it: a head without CPUs, and no other node until work asks for one."""
    file = autoscaled(tmp_path, {"CPU": 1, "object_store_memory": 10**8}, most=2)
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    if not is_free(FAKE_PORT):
        pytest.skip(f"port {FAKE_PORT} is taken, where Ray's provider of nodes for tests looks for the head")
    head = Head(tmp_path, "--num-cpus=0", f"--autoscaling-config={file}", port=FAKE_PORT)
    try:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        shutil.rmtree(tmp_path / "run/latents")
        settings = merge(copied, {"encode": {"workers": {"count": 2}}, "ray": {"wait_minutes": 3}})
        process = start("encode", save(settings), cwd=tmp_path)
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert "but the cluster has 0 CPUs" in output
        assert "waiting for nodes, 3 minutes at most" in output
        assert manifest(settings)["encode"]["rows_out"] == 60
    finally:
        head.stop()
