"""Ray clusters as `ray start` makes them: a head with its job server, and nodes beside it, even in network and mount
namespaces of their own, where they differ as machines do.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

import pytest

RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = "0123456789abcdef0123456789abcdef"  # Ray wants 32 hexadecimal digits


def free_port() -> int:
    """A port below those that the system, and Ray's workers, take for connections of their own."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise OSError("100 ports between 20,000 and 32,000 are taken")


METRICS = free_port()


def is_free(port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


class Head:
    """`ray start --head`; everything of it ends with `stop`."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        address: str = "127.0.0.1",
        token: str = TOKEN,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self.port, self.dashboard = port or free_port(), free_port()
        self.address = f"{address}:{self.port}"
        self.jobs = f"http://127.0.0.1:{self.dashboard}"
        of_a_driver = ("RAY_ADDRESS", "RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR")
        self.environment = {k: v for k, v in os.environ.items() if k not in of_a_driver} | dict(environment or {})
        # a short name, for its sockets; of its own, since Ray notes the last head there, and jobs go by that note
        self._ray_folder = tempfile.mkdtemp(prefix="ldsaug-", dir="/tmp")
        self.environment["RAY_TMPDIR"] = self._ray_folder
        self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        self._folder = folder
        self._start(
            ["--head", f"--port={self.port}", f"--node-ip-address={address}", "--dashboard-host=127.0.0.1"],
            [f"--dashboard-port={self.dashboard}", "--dashboard-agent-listen-port=0", *options],
        )

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Commands attach to it from here on."""
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.setenv(name, self.environment[name])
        patch.setenv("RAY_ADDRESS", self.address)

    def add_node(self, *options: str, prefix: Sequence[str] = ()) -> None:
        """`ray start --address`, behind a command such as `ip netns exec NAME`."""
        self._start([f"--address={self.address}", "--dashboard-agent-listen-port=0"], options, prefix)

    def _start(self, what: Sequence[str], options: Sequence[str], prefix: Sequence[str] = ()) -> None:
        started = subprocess.run(
            [*prefix, RAY, "start", *what, *options, "--disable-usage-stats"],
            env=self.environment,
            cwd=self._folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert started.returncode == 0, started.stdout

    def processes(self) -> list[int]:
        """Of the head, its nodes, and their workers: all are told where the head is."""
        marks = (f":{self.port}", f"gcs_server_port={self.port}")
        return [pid for pid in _all_pids() if any(mark in _command(pid) for mark in marks) and pid != os.getpid()]

    def workers(self, actor: str) -> list[int]:
        """Of the processes that actors of that class live in."""
        ours = set(self.processes())
        return [pid for pid in _all_pids() if _command(pid).startswith(f"ray::{actor}") and _above(pid) & ours]

    def stop(self) -> None:
        """Kill all of it."""
        for _ in range(50):
            left = self.processes()
            if not left:
                shutil.rmtree(self._ray_folder, ignore_errors=True)
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            threading.Event().wait(0.1)
        raise AssertionError(f"processes of {self.address} do not end: {self.processes()}")


def autoscaled(folder: Path, resources: dict[str, float], most: int) -> Path:
    """A file for `ray start --autoscaling-config`: nodes are processes of this machine, started when asked for."""
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most},
    }
    provider = {"type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True}
    config = {
        "cluster_name": "ldsaug",
        "max_workers": most,
        "provider": {**provider, "disable_launch_config_check": True},
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 1,
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
        **{key: [] for key in ("setup_commands", "head_setup_commands", "worker_setup_commands")},
        **{key: [] for key in ("head_start_ray_commands", "worker_start_ray_commands")},
        "file_mounts_sync_continuously": False,
    }
    file = folder / "autoscaling.json"
    file.write_text(json.dumps(config))
    return file


class Hosts:
    """A head without CPUs, and hosts with one each in network namespaces: each has an address of its own."""

    def __init__(self, folder: Path):
        self.names: list[str] = []
        self.head: Head | None = None
        self.stop()  # what a test that was killed has left
        _ip("link", "add", "ldsaug", "type", "bridge")
        _ip("addr", "add", "10.213.7.1/24", "dev", "ldsaug")
        _ip("link", "set", "ldsaug", "up")
        try:
            self.head = Head(
                folder,
                "--num-cpus=0",
                "--object-store-memory=200000000",
                "--include-dashboard=false",
                address="10.213.7.1",
            )
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def possible() -> bool:
        """Whether this process may make network namespaces."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return False
        return all(_ip("netns", what, "ldsaug-try", check=False) == 0 for what in ("add", "del"))

    def add(self) -> str:
        """Another host; its name."""
        n = len(self.names) + 2
        name, device = f"ldsaug{n}", f"ldsaug-{n}"
        self.names.append(name)
        _ip("netns", "add", name)
        _ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", device, "master", "ldsaug", "up")
        _ip("-n", name, "addr", "add", f"10.213.7.{n}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", name, "link", "set", link, "up")
        options = ["--num-cpus=1", "--object-store-memory=100000000", f"--node-ip-address=10.213.7.{n}"]
        assert self.head is not None
        self.head.add_node(*options, prefix=["ip", "netns", "exec", name])
        return name

    def where(self, actor: str) -> list[str]:
        """Hosts with an actor of that class."""
        return [name for name in self.names if any(actor in _command(pid) for pid in _pids(name))]

    def kill(self, name: str, actor: str) -> int:
        """The host's actors of that class die; how many these were."""
        return _kill([pid for pid in _pids(name) if actor in _command(pid)])

    def lose(self, name: str) -> None:
        """Everything on this host is gone at once."""
        _kill(_pids(name))

    def stop(self) -> None:
        """Take it all down."""
        if self.head is not None:
            self.head.stop()
        for name in [f"ldsaug{n}" for n in range(2, 20)]:
            if Path(f"/run/netns/{name}").exists():
                _ip("netns", "del", name)
        _ip("link", "del", "ldsaug", check=False)


@contextmanager
def full_stores(address: str) -> Iterator[Callable[[], float]]:
    """While the block lasts, objects that take more than every node's object store has; says what was spilled, MiB."""
    program = """if True:
        import sys
        import numpy as np, ray
        from ray._private.internal_api import memory_summary
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
        fill = ray.remote(num_cpus=0)(lambda size: np.ones(size // 8))
        held = []
        for node in (n for n in ray.nodes() if n["Alive"]):
            there = fill.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            held += [there.remote(int(node["Resources"]["object_store_memory"] / 10)) for _ in range(11)]
        ray.wait(held, num_returns=len(held), fetch_local=False)
        for _ in sys.stdin:
            print(memory_summary(stats_only=True), "END", sep="\\n", flush=True)
    """
    words = [sys.executable, "-c", program, address]
    process = subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None

    def spilled() -> float:
        process.stdin.write("\n")
        process.stdin.flush()
        text = "".join(takewhile(lambda line: line != "END\n", process.stdout))
        assert process.poll() is None, "it ended"
        return sum(float(mib) for mib in re.findall(r"Spilled (\d+) MiB", text))

    try:
        spilled()  # they are there
        yield spilled
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _kill(processes: Sequence[int]) -> int:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(processes)


def _ip(*words: str, check: bool = True) -> int:
    done = subprocess.run(["ip", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert not check or done.returncode == 0, (words, done.stdout)
    return done.returncode


def _all_pids() -> list[int]:
    return [int(process.name) for process in Path("/proc").glob("[0-9]*")]


def _above(pid: int) -> set[int]:
    """The process's parent, its parent's, and so on."""
    found: set[int] = set()
    with suppress(OSError):  # it has ended
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found.add(pid)
    return found


def _pids(name: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", name], text=True, capture_output=True).stdout.split()
    return [int(pid) for pid in found]


def _command(pid: int) -> str:
    with suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
