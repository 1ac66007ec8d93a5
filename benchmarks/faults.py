"""What a fault costs, and whether the result is the undisturbed one: a run on three Ray nodes of this machine, of which
a node, an actor or the driver dies in the middle of a stage, or whose object stores are full.

    python benchmarks/faults.py                       # every row of the table in docs/reliability.md; half an hour
    python benchmarks/faults.py --only node/score     # one of them
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml
from ray._private.internal_api import memory_summary
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.table import Table

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages.shared.checkpoints import RECORD, Checkpoints

ONE_EACH: dict[str, Any] = {"count": 3, "cpus": 1}
SETTINGS: dict[str, Any] = {
    "data": {"source": "sklearn:digits", "resolution": 16, "upscale": True, "test": 297, "part_rows": 30},
    "vae": {"latent_dim": 16, "channel_base": 512, "channel_max": 32, "mapping_layers": 0},
    "train": {"steps": 100, "batch_size": 32, "learning_rate": 0.01},
    "encode": {"workers": ONE_EACH, "batch_size": 30},
    "score": {"n_candidates": 40_000, "part_candidates": 400, "workers": ONE_EACH, "shard_latents": 500},
    "select": {"exclude_parents": True},
    "decode": {"workers": ONE_EACH, "part_rows": 200},
    "finetune": {"steps": 400, "batch_size": 32, "learning_rate": 0.003, "mixing": 0.5, "checkpoint_every": 20},
    "tracking": {"enabled": False},
}
STEPS, CHECKPOINT = SETTINGS["finetune"]["steps"], SETTINGS["finetune"]["checkpoint_every"]
STAGES = ("encode", "score", "decode", "finetune")
ROWS = [*(f"{kind}/{stage}" for stage in STAGES for kind in ("node", "actor", "driver")), "store/score"]
STORE = 80 * 10**6  # bytes of each node's object store; Ray wants 75 MiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="KIND/STAGE", help=", ".join(ROWS))
    asked = parser.parse_args()
    table = Table(title="a fault in the middle of a stage, on three nodes", title_justify="left")
    for title in ("what is lost", "stage", "done by then", "done again", "result"):
        table.add_column(title)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    for _ in range(3):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        with tempfile.TemporaryDirectory() as folder:
            calm = Run(Path(folder) / "calm")
            assert calm.start("run").wait() == 0, calm.printed()
            for row in asked.only:
                kind, stage = row.split("/")
                calm.again(stage)  # alone, as the disturbed one is
                table.add_row(kind, stage, *disturbed(calm, Run(Path(folder) / "run", calm), cluster, kind, stage))
                Console(width=120).print(table)
    finally:
        ray.shutdown()
        cluster.shutdown()


class Run:
    """A run directory, and commands on it."""

    def __init__(self, folder: Path, like: Run | None = None):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.place, self.config, self._output = folder / "run", folder / "config.yaml", folder / "output.txt"
        self.config.write_text(yaml.safe_dump({"run_dir": str(self.place), **SETTINGS}))
        if like is not None:
            shutil.copytree(like.place, self.place)

    def again(self, stage: str) -> None:
        """Do a stage once more, from its beginning."""
        self.forget(stage)
        assert self.start(stage).wait() == 0, self.printed()

    def forget(self, stage: str) -> None:
        RunDir(Location.of(self.place)).reset(stage)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        with open(self._output, "wb") as out:
            words = [sys.executable, "-m", "ldsaug_ray", command, str(self.config)]
            return subprocess.Popen(words, cwd=self.place.parent, stdout=out, stderr=subprocess.STDOUT)

    def printed(self) -> str:
        return self._output.read_text()

    def entry(self, stage: str) -> dict[str, Any]:
        return dict(json.loads((self.place / "manifest.json").read_text())["stages"][stage])

    def units(self, stage: str) -> dict[str, float]:
        """Markers of finished units, and when they were written."""
        found = {}
        for marker in (self.place / f"_progress/{stage}").glob("*.unit.json"):
            with suppress(FileNotFoundError):
                found[marker.name] = marker.stat().st_mtime
        return found

    def done(self, stage: str) -> int:
        """Units that have left their marker; of training the step of the last checkpoint."""
        if stage != "finetune":
            return len(self.units(stage))
        last = Checkpoints(Location.of(self.place), stage).last()
        return 0 if last is None else last.step

    def step(self) -> float:
        """The step that training is at: the last checkpoint's, and as many more as the time since then allows."""
        times = sorted(f.stat().st_mtime for f in (self.place / "finetune/checkpoints").glob(f"*/{RECORD}"))
        return self.done("finetune") + CHECKPOINT * (time.time() - times[-1]) / (times[-1] - times[-2])


def disturbed(calm: Run, run: Run, cluster: Cluster, kind: str, stage: str) -> list[str]:
    """The cells of one row, from "done by then" on."""
    total = STEPS if stage == "finetune" else calm.done(stage)
    undisturbed = calm.entry(stage)
    run.forget(stage)
    ballast = fill_the_stores(cluster) if kind == "store" else []
    driver = run.start(stage)
    tick = threading.Event()
    while run.done(stage) < total // 2:
        assert driver.poll() is None, f"it ended before it could be disturbed:\n{run.printed()}"
        tick.wait(0.01)
    if stage == "finetune":
        tick.wait(1.0)  # not at a checkpoint
    before, step = run.units(stage), run.step() if stage == "finetune" else 0.0
    if kind == "driver":
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        driver = run.start(stage)
    elif kind == "actor":
        os.kill(workers(cluster, stage)[0][1], signal.SIGKILL)
    elif kind == "node":
        cluster.remove_node(workers(cluster, stage)[0][0], allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    assert driver.wait() == 0, run.printed()
    entry = run.entry(stage)
    if stage == "finetune":
        again = step - entry["resumed_from_step"]
        by_then, twice = f"step {step:.0f} of {total}", f"{again:.0f} steps ({100 * again / total:.1f} %)"
    else:  # a finished unit that is done again has a newer marker; those at work, one an actor, leave no trace
        after = run.units(stage)
        again = sum(after[name] > then for name, then in before.items())
        at_work = {"node": 1, "actor": 1, "driver": SETTINGS[stage]["workers"]["count"], "store": 0}[kind]
        by_then = f"{len(before)} of {total} units"
        twice = f"{again}, and {at_work} at work ({100 * (again + at_work) / total:.1f} %)"
    spilled = f", {spilled_bytes(ballast) / 1e6:,.0f} MB spilled" if ballast else ""
    same = entry["digest"] == undisturbed["digest"] and entry["rows_out"] == undisturbed["rows_out"]
    return [by_then, twice, ("identical" if same else "DIFFERENT") + spilled]


def workers(cluster: Cluster, stage: str) -> list[tuple[Any, int]]:
    """(node, process) of the actors that do the stage's work."""
    name = "RayTrainWorker" if stage == "finetune" else "UnitActor"
    parents, commands = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(process.name)] = (process / "cmdline").read_text()
    found = []
    for node in cluster.list_all_nodes():
        (raylet,) = node.all_processes["raylet"]
        for pid, command in commands.items():
            above = pid
            while above > 1 and above != raylet.process.pid:
                above = parents.get(above, 0)
            if above == raylet.process.pid and name in command:
                found.append((node, pid))
    assert found, f"no process of {name}"
    return found


def fill_the_stores(cluster: Cluster) -> list[Any]:
    """Objects that take more than every node's store, as long as they are held."""
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    here = [NodeAffinitySchedulingStrategy(n["NodeID"], soft=False) for n in ray.nodes() if n["Alive"]]
    block = ray.remote(num_cpus=0)(lambda: np.ones(STORE // 80, np.float64))  # a tenth of it
    held = [block.options(scheduling_strategy=node).remote() for node in here for _ in range(11)]
    ray.wait(held, num_returns=len(held), fetch_local=False)
    return held


def spilled_bytes(held: list[Any]) -> float:
    """How much went to disk, of all nodes, while these were held."""
    del held
    text = str(memory_summary(stats_only=True))
    ray.shutdown()
    spilled = sum(float(mib) * 2**20 for mib in re.findall(r"Spilled (\d+) MiB", text))
    assert spilled > 0, text
    return spilled


if __name__ == "__main__":
    main()
