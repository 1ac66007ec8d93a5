"""The cluster files: valid under Ray's own schema, and safe where a user would copy them as they are."""

from __future__ import annotations

import json
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws
from packaging.requirements import Requirement
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.docker import docker_start_cmds
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


def test_jobs_on_machines_that_you_have_find_python_there():
    config = read("deploy/local-cluster.yaml")
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "PATH=$HOME/ldsaug/.venv/bin:$PATH ~/ldsaug/.venv/bin/ray start" in config[key][-1]
    assert config["auth"]["ssh_private_key"]  # without it the head cannot reach the workers


def test_no_setup_command_writes_where_docker_made_the_folder():
    config = read("cluster.yaml")
    command = docker_start_cmds("ubuntu", "image", config["file_mounts"], "name", [], "ldsaug", "/home/ray", "docker")
    mounted = [word.partition(":")[2] for word in command.split() if word.startswith("/tmp/ray_tmp_mount")]
    theirs = {str(Path(place).parent) for place in mounted}  # Docker makes these for root; commands run as user ray
    assert theirs == {"/home/ray/.ray", "/home/ray/ldsaug"}
    (command,) = config["setup_commands"]
    steps = [step.split() for step in command.split(" && ")]
    assert steps[:2] == [["mkdir", "-p", "~/deps/ldsaug_ray"], ["cd", "~/deps"]]
    assert {word for step in steps[2:] for word in step if "ldsaug/" in word and "deps" not in word} == {
        "~/ldsaug/constraints.txt",
        "~/ldsaug/pyproject.toml",
    }


@pytest.fixture
def aws(tmp_path, monkeypatch):
    """EC2 and IAM as moto imitates them, and a home for the SSH key that Ray makes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    with mock_aws():
        yield boto3.resource("ec2", region_name=read("cluster.yaml")["provider"]["region"])


def open_to(ec2) -> set[str]:
    """From where the groups of our name let SSH in."""
    groups = [group for group in ec2.security_groups.all() if group.group_name == "ldsaug"]
    assert len(groups) == 1
    rules = [rule for rule in groups[0].ip_permissions if rule.get("FromPort") == 22]
    return {place["CidrIp"] for rule in rules for place in rule["IpRanges"]}


def test_ray_up_takes_the_group_the_roles_and_the_image_as_they_are(aws):
    (vpc,) = aws.vpcs.all()
    group = aws.create_security_group(GroupName="ldsaug", Description="as docs/cluster.md", VpcId=vpc.id)
    group.authorize_ingress(IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group.id}]}])
    group.authorize_ingress(IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="203.0.113.0/24")
    started = bootstrap_aws(prepare_config(read("cluster.yaml")))
    assert open_to(aws) == {"203.0.113.0/24"}
    nodes = {name: node["node_config"] for name, node in started["available_node_types"].items()}
    assert {tuple(node["SecurityGroupIds"]) for node in nodes.values()} == {(group.id,)}
    assert {name: node["IamInstanceProfile"]["Name"] for name, node in nodes.items()} == {
        "head": "ldsaug-head",
        "gpu-demand": "ldsaug-worker",
        "gpu-spot": "ldsaug-worker",
    }
    assert "IamInstanceProfile" not in started["head_node"]  # Ray's own role, which may give workers none
    assert {node["ImageId"] for node in nodes.values()} == {"ami-replace-me"}


def test_why_the_group_is_made_first(aws):
    bootstrap_aws(prepare_config(read("cluster.yaml")))
    assert open_to(aws) == {"0.0.0.0/0"}  # should Ray ever close it, docs/cluster.md has a step too many


def test_the_roles_may_what_docs_say():
    def listed(value: str | list[str]) -> list[str]:
        return [value] if isinstance(value, str) else value

    def allowed(name: str) -> dict[str, list[str]]:
        actions: dict[str, list[str]] = {}
        for part in json.loads((ROOT / "deploy/aws" / name).read_text())["Statement"]:
            assert part["Effect"] == "Allow"
            for action in listed(part["Action"]):
                actions.setdefault(action, []).extend(listed(part["Resource"]))
        return actions

    data, head = allowed("data.json"), allowed("head.json")
    assert all(action.startswith("s3:") for action in data)
    for key, actions in {"celeba-hq/a.png": {"Get"}, "runs/a/b": {"Get", "Put", "Delete"}, "other/a": set()}.items():
        for action in ("Get", "Put", "Delete"):
            may = any(fnmatch(f"arn:aws:s3:::bucket/{key}", place) for place in data[f"s3:{action}Object"])
            assert may == (action in actions)
    assert head.pop("iam:PassRole") == ["arn:aws:iam::*:role/ldsaug-worker"]
    assert all(action.startswith("ec2:") for action in head)


def test_the_image_takes_no_more_than_a_job():
    """What `.rayignore` keeps from a job, `.dockerignore` keeps from the image."""
    kept = {line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert set((ROOT / ".rayignore").read_text().splitlines()) <= kept


def test_the_versions_are_those_that_are_tested():
    assert read("cluster.yaml")["docker"]["image"] == f"rayproject/ray:{VERSION}-py311-gpu"
    assert read("deploy/rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == VERSION
    assert f"FROM rayproject/ray:{VERSION}-py311-gpu" in (ROOT / "deploy/Dockerfile").read_text()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [r.specifier.contains(VERSION) for r in map(Requirement, needed) if r.name == "ray"] == [True]


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


def test_the_upload_is_small(tmp_path):
    """Ray refuses 100 MiB; ours stays under a tenth of it."""
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True)
    assert package.stat().st_size < 10 * 2**20
    names = zipfile.ZipFile(package).namelist()
    assert {"jobs/run.py", "configs/celebahq.yaml", "ldsaug_ray/cli.py"} <= set(names)
    assert not [n for n in names if n.startswith((".git/", ".venv/", "runs/", "mlruns/")) or n.endswith(".parquet")]
