"""The cluster files: valid under Ray's own schema, and safe where a user would copy them as they are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

ROOT = Path(__file__).parents[2]
VERSION = next(
    line.removeprefix("ray==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("ray==")
)


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/local-cluster.yaml"])
def test_launcher_files_are_valid_and_closed(name):
    config = read(name)
    validate_config(prepare_config(read(name)))
    starts = [
        c for key in ("head_start_ray_commands", "worker_start_ray_commands") for c in config[key] if " start " in c
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in (ROOT / name).read_text()
    assert any("auth_token" in place for place in config["file_mounts"])


def test_the_versions_are_those_that_are_tested():
    assert read("cluster.yaml")["docker"]["image"] == f"rayproject/ray:{VERSION}-py311-gpu"
    assert read("deploy/rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == VERSION
    assert f"FROM rayproject/ray:{VERSION}-py311-gpu" in (ROOT / "deploy/Dockerfile").read_text()
    minor = int(VERSION.split(".")[1])
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(line.startswith("ray[") and int(line.rpartition(".")[2]) <= minor for line in needed)


def test_spot_first_then_on_demand():
    config = read("cluster.yaml")
    for name in ("gpu-spot", "gpu-demand"):
        config["available_node_types"][name]["resources"] = {"CPU": 8, "GPU": 1}  # as Ray finds out from AWS
    kinds = AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs()
    need = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"GPU": 1})] * 3)

    def launched(refused: dict[str, float]) -> dict[str, int]:
        asked = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=kinds,
            max_num_nodes=16,
            resource_requests=need,
            cloud_resource_availabilities=refused,
            recoverable_resource_availabilities=refused,
        )
        reply = ResourceDemandScheduler(event_logger=None).schedule(asked)
        return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type != "head"}

    assert launched({}) == {"gpu-spot": 3}
    assert launched({"gpu-spot": 0.0}) == {"gpu-demand": 3}
    nodes = config["available_node_types"]
    assert nodes["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in nodes["gpu-demand"]["node_config"]


def test_the_ray_job_asks_for_a_token():
    job = read("deploy/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["backoffLimit"] > 0
    config = job["spec"]["entrypoint"].split()[2]
    assert (ROOT / config).exists()
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        assert {"requests", "limits"} <= container["resources"].keys()
