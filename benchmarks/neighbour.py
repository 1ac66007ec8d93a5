"""What a busy program beside it costs a training on the same cores, by the number of threads and how these wait.

    .venv/bin/python benchmarks/neighbour.py [--config configs/demo.yaml] [--seconds 4] [--repeats 5]

The neighbour is one process of as many threads as there are cores, each of which multiplies matrices of its own without
end: fair sharing makes a training half as fast. Ways to wait are tried in turn, alone and beside the neighbour, because
other work on the machine drifts; ratios are of medians. The best is nearest to what an idle machine gives.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict

import numpy as np
import torch

CORES = len(os.sched_getaffinity(0))
WAYS: dict[str, dict[str, str]] = {  # name -> environment of the training
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spin endlessly (libgomp's default)": {},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 100": {"GOMP_SPINCOUNT": "100"},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def train(file: str, seconds: float) -> None:
    """Train in this process for so long at each line that comes in, and print images/s."""
    from ldsaug_ray.config import load_config
    from ldsaug_ray.engines.threads import keep_freed_memory
    from ldsaug_ray.models import Trainer, build_vae

    keep_freed_memory()
    config = load_config(file, [])
    side, batch = config.data.resolution, config.train.batch_size
    trainer = Trainer(build_vae(config.vae, side, 0), config.train, 0, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    for _ in range(5):
        trainer.train_step(images)
    print("ready", flush=True)
    for _ in sys.stdin:
        steps, started = 0, time.perf_counter()
        while time.perf_counter() < started + seconds:
            trainer.train_step(images)
            steps += 1
        print(steps * batch / (time.perf_counter() - started), flush=True)


def compute() -> None:
    """Be the neighbour: threads that never wait for each other."""
    from threading import Thread

    torch.set_num_threads(1)

    def work() -> None:
        a = torch.randn(500, 500)
        while True:
            torch.mm(a, a)

    print("ready", flush=True)
    for _ in range(CORES):
        Thread(target=work).start()


class Process:
    """One of the above in a process of its own, which stands still unless it is asked for something."""

    def __init__(self, role: str, way: dict[str, str], arguments: argparse.Namespace):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        command = [sys.executable, __file__, "--seconds", str(arguments.seconds), "--config", arguments.config]
        self.process = subprocess.Popen(
            [*command, "--role", role],
            env={**environment, **way},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def answer(self, asked: str = "") -> str:
        """What it says next."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(asked)
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml", help="whose model, resolution, batch")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS), help="these ways to wait")
    parser.add_argument("--role", choices=("train", "compute"), help=argparse.SUPPRESS)  # of this process
    arguments = parser.parse_args()
    if arguments.role:
        train(arguments.config, arguments.seconds) if arguments.role == "train" else compute()
        return
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    trainings = {name: Process("train", WAYS[name], arguments) for name in arguments.only}
    neighbour = Process("compute", {}, arguments)
    try:
        for _ in range(arguments.repeats):
            for name, training in trainings.items():
                for busy in (False, True):
                    neighbour.process.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)
                    found[name, busy].append(float(training.answer("go\n")))
    finally:
        for process in (neighbour, *trainings.values()):
            process.stop()
    print("| threads wait by | alone, images/s: median, best | beside the neighbour | a neighbour costs |")
    print("| --- | --- | --- | --- |")
    for name in arguments.only:
        alone, beside = ((statistics.median(rates), max(rates)) for rates in (found[name, False], found[name, True]))
        told = [f"{middle:,.0f}, {best:,.0f}" for middle, best in (alone, beside)]
        print(f"| {name} | {told[0]} | {told[1]} | {alone[0] / beside[0]:.1f} × |")


if __name__ == "__main__":
    main()
