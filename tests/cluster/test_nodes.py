"""Clusters that will not do are told of in words; nodes that an autoscaler brings are waited for, late ones used."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
from cluster_helpers import ended, manifest, markers
from heads import TOKEN, Head, autoscaled, is_free
from stages_helpers import merge, start, until

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir

pytestmark = pytest.mark.cluster

FAKE_PORT = 6379
SMALL = ("--num-cpus=1", "--object-store-memory=100000000")


def test_a_cluster_that_will_not_do(attached, copied, save, tmp_path, monkeypatch):
    """GPUs that it has not, after the set time; a wrong token; another Ray."""
    other_batches = merge(copied, {"encode": {"batch_size": 7}})
    wanting = merge(other_batches, {"encode": {"workers": {"gpus": 1}}, "ray": {"wait_minutes": 0.01}})
    output = ended(start("encode", save(wanting), cwd=tmp_path), 1)
    assert "the cluster has 2 CPUs, 0 GPUs and" in output
    assert "waiting for nodes, 0.01 minutes at most (ray.wait_minutes)" in output
    assert "error: encode.workers asks for 1 × (1 CPU, 1 GPU)" in output

    settings = save(other_batches)
    output = ended(start("encode", settings, cwd=tmp_path, environment={"RAY_AUTH_TOKEN": TOKEN[::-1]}), 1)
    assert f"error: RAY_ADDRESS={attached.address}: the cluster does not accept the token" in output
    assert TOKEN[::-1] not in output

    other = "import ray, sys; ray.__version__ = '2.59.0'; from ldsaug_ray.cli import main; sys.exit(main())"
    refused = subprocess.run([sys.executable, "-c", other, "encode", settings], capture_output=True, text=True)
    assert refused.returncode == 1, refused.stderr
    assert f"error: RAY_ADDRESS={attached.address}: this Python is not the cluster's: Version" in refused.stderr
    assert "Ray: 2.59.0" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_that_one_node_does_not_see(copied, save, tmp_path, monkeypatch):
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here: a node cannot be made to miss a folder")
    hidden = f'mount -t tmpfs none {tmp_path / "run"} && exec "$@"'
    head = Head(tmp_path, *SMALL, "--include-dashboard=false")
    try:
        head.attach(monkeypatch)
        head.add_node(*SMALL, prefix=["unshare", "-m", "sh", "-c", hidden, "-"])
        output = ended(start("encode", save(merge(copied, {"encode": {"batch_size": 7}})), cwd=tmp_path), 1)
    finally:
        head.stop()
    assert f"error: run_dir {tmp_path / 'run'}: node " in output
    assert "does not see it; on a cluster it must be on storage that every node reaches" in output
    assert not list((tmp_path / "run").glob(".seen*"))


def test_nodes_that_an_autoscaler_brings_are_waited_for(copied, save, tmp_path, monkeypatch):
    """As `cluster.yaml` has it: a head without CPUs, and no other node until work asks for one."""
    file = autoscaled(tmp_path, {"CPU": 1, "object_store_memory": 10**8}, most=2)
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    if not is_free(FAKE_PORT):
        pytest.skip(f"port {FAKE_PORT} is taken, where Ray's provider of nodes for tests looks for the head")
    head = Head(tmp_path, "--num-cpus=0", "--include-dashboard=false", f"--autoscaling-config={file}", port=FAKE_PORT)
    try:
        head.attach(monkeypatch)
        shutil.rmtree(tmp_path / "run/latents")
        settings = merge(copied, {"encode": {"workers": {"count": 2}}, "ray": {"wait_minutes": 3}})
        output = ended(start("encode", save(settings), cwd=tmp_path))
        assert "but the cluster has 0 CPUs" in output
        assert "waiting for nodes, 3 minutes at most" in output
        assert manifest(settings)["encode"]["rows_out"] == 60
    finally:
        head.stop()


def test_a_node_that_comes_in_the_middle_of_a_stage_is_used(copied, undisturbed, save, tmp_path, monkeypatch):
    """With `workers.count: auto`. The first node's actor is halted meanwhile: what is done is the second's work."""
    RunDir(Location.of(copied["run_dir"])).reset("score")
    settings = merge(copied, {"score": {"workers": {"count": "auto"}}})
    head = Head(tmp_path, *SMALL, "--include-dashboard=false")
    try:
        head.attach(monkeypatch)
        command = start("score", save(settings), cwd=tmp_path)
        until(lambda: markers(settings, "score") >= 5, command)
        (first,) = head.workers("UnitActor")
        os.kill(first, signal.SIGSTOP)
        done = markers(settings, "score")
        head.add_node(*SMALL)
        until(lambda: markers(settings, "score") >= done + 20, command)
        assert len(head.workers("UnitActor")) == 2
        os.kill(first, signal.SIGCONT)
        ended(command)
    finally:
        head.stop()
    assert manifest(settings)["score"]["digest"] == manifest(undisturbed)["score"]["digest"]
