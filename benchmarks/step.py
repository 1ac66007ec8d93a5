"""Where the time of one training step goes, by kind of operation, at several resolutions.

    .venv/bin/python benchmarks/step.py [--sides 32 64 256] [--steps 16]

32 px is the model of configs/celeba10k.yaml, larger sizes that of configs/celebahq.yaml with its discriminator.
Milliseconds are what torch.profiler counts in the operations themselves; `step` is the time of a step without it, so
that what is beyond their sum is Python. R1 is due every 16 steps: with so many it has its share. `of the product's
rate`: the GFLOP of a step (without R1) at the rate of a large matrix product in the same run, over the step's time.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ldsaug_ray.config import load_config
from ldsaug_ray.models import Trainer, build_vae

WARM_STEPS = 4
KINDS = ("matrix products", "FIR filters", "elementwise", "sums", "copies", "optimiser, averages", "random", "other")
_OF = {
    "sums": ("sum", "mean", "var", "norm", "amax"),
    "copies": ("copy_", "cat", "fill_", "zero_", "_to_copy", "clone", "index", "gather", "constant_pad", "flip"),
    "optimiser, averages": ("_fused_adam", "_foreach"),
    "random": ("normal", "random", "uniform", "bernoulli", "rand"),
    "matrix products": ("mm", "addmm", "bmm", "conv"),
    "elementwise": (
        *("mul", "add", "sub", "div", "leaky_relu", "abs", "sgn", "sqrt", "rsqrt", "exp", "tanh", "pow", "square"),
        *("clamp", "neg", "where", "softplus", "sigmoid", "log", "maximum", "minimum", "lerp", "threshold"),
    ),
}  # fmt: skip


def kind(name: str, shapes: list[list[int]]) -> str:
    """Which of KINDS an operation of ATen belongs to; shapes: of its inputs."""
    name = name.removeprefix("aten::")
    if "conv" in name:
        depthwise = any(len(s) == 4 and s[1] == 1 and s[2:] == [4, 4] for s in shapes[1:3])
        return "FIR filters" if depthwise else "matrix products"
    for group, words in _OF.items():
        if any(word in name for word in words):
            return group
    return "other"


def product_rate(side: int = 2048, repeats: int = 8) -> float:
    """GFLOP a millisecond of a float32 matrix product."""
    a = torch.randn(side, side)
    torch.mm(a, a)
    started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(a, a)
    return 2e-12 * side**3 * repeats / (time.perf_counter() - started)


def milliseconds(trainer: Trainer, images: np.ndarray, batch: int, steps: int) -> dict[str, float]:
    """Of a step: by kind of operation on the trainer's device, and `step`, the wall time, not profiled.

    images: uint8[N, R, R, 3], taken in turn.
    """
    batches = [images[[(k * batch + n) % len(images) for n in range(batch)]] for k in range(steps)]
    on_gpu = trainer.device.type == "cuda"

    def run() -> float:
        started = time.perf_counter()
        for one in batches:
            trainer.train_step(one)
        if on_gpu:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - started) / steps

    for one in batches[:WARM_STEPS]:
        trainer.train_step(one)
    wall = run()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as found:
        run()
    spent: Counter[str] = Counter()
    for event in found.key_averages(group_by_input_shape=True):
        if event.key.startswith("aten::"):
            micro = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            spent[kind(event.key, event.input_shapes)] += micro / 1000 / steps
    return {"step": wall, **{name: spent[name] for name in KINDS}}


def trainer_of(side: int, device: str = "cpu", **settings: object) -> Trainer:
    """A new model of this size and its trainer; settings: of section `train`, in place of the file's."""
    file = "celebahq" if side > 32 else "celeba10k"
    config = load_config(str(Path(__file__).parents[1] / f"configs/{file}.yaml"), [])
    return Trainer(build_vae(config.vae, side, 0), config.train.model_copy(update=settings), 0, device)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 256])
    parser.add_argument("--steps", type=int, default=16)
    arguments = parser.parse_args()
    from ldsaug_ray.engines.threads import keep_freed_memory  # not above: the check of GPUs imports this module

    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads; ms a step")
    columns = ("side, px", "batch", "GFLOP", "of the product's rate", "step", *KINDS)
    print(f"| {' | '.join(columns)} |\n| {'--- | ' * len(columns)}")
    for side in arguments.sides:
        batch = max(1, min(16, 16384 // side**2))
        trainer = trainer_of(side, batch_size=batch)
        images = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), np.uint8)
        spent, rate = milliseconds(trainer, images, batch, arguments.steps), product_rate()
        with FlopCounterMode(display=False) as counted:  # a step of many: without R1
            trainer.train_step(images[:batch])
        gflop = counted.get_total_flops() / 1e9
        shown = [
            side,
            batch,
            f"{gflop:,.1f}",
            f"{gflop / rate / spent['step']:.2f}",
            *(f"{x:,.1f}" for x in spent.values()),
        ]
        print("| " + " | ".join(map(str, shown)) + " |", flush=True)


if __name__ == "__main__":
    main()
