"""Memory of `augment` on a Ray Dataset: 10^6 and 10^7 candidates, of which the same number is kept.

    .venv/bin/python benchmarks/stream.py [--latents 2000] [--dim 16] [--candidates 1000000 10000000] [--keep 10000]

While the Dataset that `augment` gives is consumed, the private memory (USS) of this process and of all below it, Ray's
included, is read four times a second. Printed are the largest process, the largest sum, and what lies on disk. To hold
all candidates would take 20 bytes each as numbers, and ten times as much as rows of `scores/`.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import ray.data

import ldsaug_ray as la


class Watch(threading.Thread):
    """The largest process and the largest sum, in bytes, from its start to its end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over, self.largest, self.total = threading.Event(), 0, 0

    def run(self) -> None:
        """Look, and wait."""
        while not self.over.wait(0.25):
            sizes = list(map(private, [psutil.Process(), *psutil.Process().children(recursive=True)]))
            self.largest, self.total = max(self.largest, *sizes), max(self.total, sum(sizes))


def private(process: psutil.Process) -> int:
    """Bytes that would be free without it; 0 where it has just ended."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0


def watched(n: int, latents: ray.data.Dataset, keep: int, folder: Path) -> tuple[float, Watch, int]:
    """Seconds, memory, and bytes on disk of n candidates; the kept ones are counted as they come, and let go."""
    watch, started = Watch(), time.perf_counter()
    watch.start()
    out = la.augment(latents, n=n, keep=keep, work_dir=folder)
    kept = sum(len(batch["key"]) for batch in out.iter_batches(batch_size=4096))
    seconds = time.perf_counter() - started
    watch.over.set()
    watch.join()
    assert kept == keep, (kept, keep)
    return seconds, watch, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Print a row of the table for each number of candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=2_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10**6, 10**7])
    parser.add_argument("--keep", type=int, default=10_000)
    asked = parser.parse_args()
    small = {"num_cpus": 2, "object_store_memory": 500_000_000, "include_dashboard": False}
    ray.init(address="local", log_to_driver=False, **small)
    z = np.random.default_rng(0).standard_normal((asked.latents, asked.dim), np.float32)
    latents = ray.data.from_arrow(pa.table({"key": list(map(str, range(len(z)))), "z": list(z)}))
    with tempfile.TemporaryDirectory() as folder:
        watched(asked.latents, latents, asked.latents // 5, Path(folder) / "warm")  # what starts and is imported
        print("| candidates | seconds | largest process, MiB | all processes, MiB | on disk, MiB |")
        print("| --- | --- | --- | --- | --- |")
        for n in asked.candidates:
            seconds, watch, size = watched(n, latents, asked.keep, Path(folder) / str(n))
            sizes = " | ".join(f"{x / 2**20:,.0f}" for x in (watch.largest, watch.total, size))
            print(f"| {n:,} | {seconds:,.0f} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
