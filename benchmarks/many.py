"""Exact scores over many latents, memory-mapped, on one machine: time and memory over N; and FAISS beside them.

    .venv/bin/python benchmarks/many.py [--latents 100000 1000000] [--dim 64] [--candidates 100000] [--scale 0.2]
    .venv/bin/python benchmarks/many.py --faiss ivf [--latents 1000000] [--candidates 10000]

Standard normal latents in one .npy file, which each N maps into memory in a process of its own and scores in shards:
views, so nothing is copied. `memory` is the peak of what the process holds (RssAnon), without mapped pages, which
the system takes back when it needs them. With --faiss the same candidates are scored by an index too: its error, how
many intervals hold the exact score, and both times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

ALPHAS = [m / 10 for m in range(1, 10)]
SHARD = 2**18  # latents
GIBIBYTE = 2**30


def write(file: Path, n: int, d: int) -> None:
    """Standard normal latents, a shard at a time."""
    z = np.lib.format.open_memmap(file, "w+", np.float32, (n, d))
    for start in range(0, n, SHARD):
        part = z[start : start + SHARD]
        part[:] = np.random.default_rng(start).standard_normal(part.shape, np.float32)


class Peak(threading.Thread):
    """The most memory of its own that this process has held, bytes, while in a `with`."""

    def __enter__(self) -> Peak:
        self.bytes, self._over = 0, threading.Event()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            held = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.bytes = max(self.bytes, 1024 * held)
            if self._over.wait(0.1):
                return


def measure(file: Path, n: int, candidates: int, scale: float, kind: str | None) -> dict[str, Any]:
    """Score once; what it took."""
    from ldsaug_ray.lds import Approximation, LatentIndex, approximate_pairs, plan_pairs, score_pairs
    from ldsaug_ray.lds.shards import Frame, Work, cut, parents_of, part, scores

    z = np.load(file, mmap_mode="r")[:n]
    sigma = scale * float(np.linalg.norm(z[:10_000], axis=1).mean())
    pairs = plan_pairs(n, -(-candidates // 9), 0)
    score_pairs(z[:500], pairs[:2] % 500, ALPHAS, [sigma])  # compile
    found: dict[str, Any] = {"processor": time.process_time()}
    started = time.perf_counter()
    with Peak() as peak:
        rows, places, _ = parents_of(pairs)
        work = Work.of(rows, z[rows], places, ALPHAS, [sigma], "linear")
        frame = Frame.over(z)
        exact = scores(work, (part(frame, work, z[s], s.start) for s in cut(n, SHARD)), n)
    found |= {"seconds": time.perf_counter() - started, "memory": peak.bytes}
    found["processor"] = time.process_time() - found["processor"]
    if kind is None:
        return found
    started = time.perf_counter()
    settings = Approximation(index=kind)  # type: ignore[arg-type]
    index = LatentIndex.build(z, settings)
    found["build"] = time.perf_counter() - started
    started = time.perf_counter()
    with Peak() as peak:
        near = approximate_pairs(z, pairs, ALPHAS, [sigma], approximation=settings, index=index)
    found |= {"faiss seconds": time.perf_counter() - started, "faiss memory": peak.bytes}
    for field in ("log_lds", "log_lds_excluding_parents"):
        want, got, low, high = (
            getattr(x, field + end) for x, end in ((exact, ""), (near, ""), (near, "_low"), (near, "_high"))
        )
        found[f"{field} off by"] = float(np.median(np.abs(got - want))), float(np.abs(got - want).max())
        found[f"{field} covered"] = float(((low <= want + 1e-5) & (want <= high + 1e-5)).mean())
    return found


def main() -> None:
    """Print the table; `--one` is what a process of its own runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--scale", type=float, default=0.2, help="sigma as a share of the mean norm")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--faiss", choices=["flat", "ivf", "ivfpq"])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        (n,) = arguments.latents
        print(json.dumps(measure(arguments.one, n, arguments.candidates, arguments.scale, arguments.faiss)))
        return
    table = Table(
        title=f"{arguments.candidates:,} candidates, d = {arguments.dim}, sigma {arguments.scale} x mean norm"
    )
    for column in ("latents", "seconds", "of processors", "memory, GiB", *(["FAISS"] if arguments.faiss else [])):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "z.npy"
        write(file, max(arguments.latents), arguments.dim)
        for n in arguments.latents:
            command = [
                sys.executable,
                __file__,
                *sys.argv[1:],
                "--latents",
                str(n),
                "--one",
                str(file),
            ]  # the last counts
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            cells = [
                f"{found.pop('seconds'):,.1f}",
                f"{found.pop('processor'):,.1f}",
                f"{found.pop('memory') / GIBIBYTE:.2f}",
            ]
            table.add_row(
                f"{n:,}", *cells, *(["\n".join(f"{k}: {v}" for k, v in found.items())] if arguments.faiss else [])
            )
    Console(width=None if Console().is_terminal else 140).print(table)


if __name__ == "__main__":
    main()
