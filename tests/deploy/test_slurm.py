"""`deploy/slurm.sh` with stand-ins for Slurm, Ray and ldsaug that write down how they were called."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/slurm.sh"
STANDS_IN = {
    "scontrol": 'printf "%s\\n" $NODES',
    "hostname": "echo 192.0.2.7 198.51.100.1",
    # a task on one machine is as good as on several: the command behind the options is run once
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": """
        if [ "$1" = health-check ]; then test -e "$CALLS/head"; exit; fi
        case "$*" in *--head*) [ -z "$BROKEN" ] || exit 1; touch "$CALLS/head" ;; esac
        exec tail -f /dev/null""",
    "python": 'if [ "$1" = -c ]; then echo secret; else cat > "$CALLS/waited.py"; fi',
    "ldsaug": """
        trap 'echo saved >> "$CALLS/saved"; exit 143' TERM
        mkfifo "$CALLS/never"
        touch "$CALLS/begun"
        if [ "$1" = wait ]; then read <> "$CALLS/never"; fi
        exit "${2:-0}" """,
}


class Job:
    """One submission."""

    def __init__(self, folder: Path, nodes: str, *words: str, broken: str = ""):
        self.calls = folder
        (folder / "bin").mkdir()
        for name, body in STANDS_IN.items():
            file = folder / "bin" / name
            log = f'echo "$RAY_ADDRESS|$RAY_AUTH_MODE $RAY_AUTH_TOKEN|$*" >> "$CALLS/{name}.log"'
            file.write_text(f"#!/bin/bash\n{log}\n{body}\n")
            file.chmod(0o755)
        environment = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "CALLS": str(folder),
            "NODES": nodes,
            "BROKEN": broken,
            "SLURM_JOB_NODELIST": "gpu[1-3]",
            "SLURM_JOB_ID": "4210042",
            "SLURM_CPUS_ON_NODE": "16",
            "SLURM_GPUS_ON_NODE": "2",
        }
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ends(self, code: int) -> str:
        """What it printed; nothing that it started is left."""
        output = self.process.communicate(timeout=60)[0]
        assert self.process.returncode == code, output
        with pytest.raises(ProcessLookupError):  # its process group is empty
            os.killpg(self.process.pid, 0)
        return output

    def log(self, name: str) -> list[list[str]]:
        """RAY_ADDRESS, mode and token, and the words of each call."""
        file = self.calls / f"{name}.log"
        return [line.split("|") for line in file.read_text().splitlines()] if file.exists() else []


def until(reached: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(3000):
        if reached():
            return
        tick.wait(0.02)
    raise AssertionError("it took more than a minute")


def test_a_head_on_the_first_node_workers_on_the_others_then_the_command(tmp_path):
    job = Job(tmp_path, "gpu1 gpu2 gpu3", "run", "", "configs/demo.yaml", "run_dir=/shared/my run")
    job.ends(0)
    of_head, of_workers = (words for _, _, words in job.log("srun"))
    assert "--nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=16 --nodelist=gpu1 " in of_head
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=16 --exclude=gpu1 " in of_workers
    starts = [call for call in job.log("ray") if call[2].startswith("start")]
    where = "192.0.2.7:20042"
    limits = "--num-cpus=16 --num-gpus=2 --metrics-export-port=8090 --block"
    assert starts == [
        [
            "",  # with an address `ray start --head` refuses
            "token secret",
            "start --head --node-ip-address=192.0.2.7 --port=20042 --include-dashboard=false "
            f"--temp-dir=/tmp/ray-4210042 {limits}",
        ],
        ["", "token secret", f"start --address={where} {limits}"],
    ]
    assert job.log("ldsaug") == [[where, "token secret", "run  configs/demo.yaml run_dir=/shared/my run"]]
    assert job.log("python")[1:] == [[where, "token secret", "- 3"]]
    compile((tmp_path / "waited.py").read_text(), "waited.py", "exec")


def test_one_node_has_no_workers_and_the_commands_code_is_the_jobs(tmp_path):
    job = Job(tmp_path, "gpu1", "run", "1")
    job.ends(1)
    assert len(job.log("srun")) == 1


def test_the_notice_of_the_time_limit_reaches_the_run_which_saves(tmp_path):
    job = Job(tmp_path, "gpu1 gpu2", "wait")
    until((tmp_path / "begun").exists)
    os.kill(job.process.pid, signal.SIGTERM)  # as --signal=B:TERM does, to the batch script alone
    assert "submit the same again to go on" in job.ends(143)
    assert (tmp_path / "saved").read_text() == "saved\n"
    (seconds,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", SCRIPT.read_text(), re.M)
    assert int(seconds) >= 60


def test_a_head_that_does_not_start(tmp_path):
    assert "Ray's head did not start on gpu1" in Job(tmp_path, "gpu1", "run", broken="yes").ends(1)


def test_without_a_command(tmp_path):
    assert "usage: sbatch" in Job(tmp_path, "gpu1").ends(2)
