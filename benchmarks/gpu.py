"""Everything that only a GPU can show, in one command of at most eight minutes: PyTorch and Triton, no Ray, no network.

    python benchmarks/gpu.py [--json FILE] [--minutes 8] [--only SECTION …] [--sides 64 128 256]
    TRITON_INTERPRET=1 python benchmarks/gpu.py --sides 16    tiny sizes on a CPU: that it runs and is right, no speeds

docs/gpu.md lists what the machine must have. Each section is a process of its own with a time of its own, since a
fault in a kernel takes its process with it: what a section has found until it fails or its time is over is kept, the
others go on, and the exit code is 1. The tables at the end are Markdown, for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

ALPHAS = [m / 10 for m in range(1, 10)]
LIMIT = 1e-4  # of log LDS: what float32 scores promise
GOAL = 0.6  # of the speed that the arithmetic allows
MARK = "ROW "  # before what a section's process has found
SMALL = os.environ.get("TRITON_INTERPRET") == "1"  # on a CPU; Triton asks for it on import
DEVICE = "cpu" if SMALL else "cuda"
Row = dict[str, Any]


def synchronise() -> None:
    """Wait for the GPU."""
    if not SMALL:
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], repeats: int = 1 if SMALL else 3) -> float:
    """Median seconds of some calls, after one that is not counted."""
    found = []
    for _ in range(1 + repeats):
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def measured(work: Callable[[], object]) -> tuple[float, float | None]:
    """Median seconds, and the most memory of the GPU that was taken, GB; none on a CPU."""
    if not SMALL:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(work)
    return seconds, None if SMALL else torch.cuda.max_memory_allocated() / 1e9


def product_rate(kind: str) -> float:
    """FLOP/s of a large matrix product: float32, tf32 (float32 numbers in TensorFloat-32) or bfloat16."""
    n = 128 if SMALL else 8192
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    seconds = seconds_of(lambda: [torch.mm(a, b) for _ in range(10)])
    torch.backends.cuda.matmul.allow_tf32 = False
    return 20 * n**3 / seconds


@triton.jit
def _powers(x, TIMES: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at)
    for _ in range(TIMES):
        value = tl.exp2(-value)
    tl.store(x + at, value)


def power_rate() -> float:
    """Powers of two a second, taken as the engine takes them."""
    block, programs, times = (64, 2, 2) if SMALL else (1024, 16_384, 512)
    x = torch.rand(block * programs, device=DEVICE)
    return block * programs * times / seconds_of(lambda: _powers[(programs,)](x, TIMES=times, BLOCK=block))


def machine() -> Iterator[Row]:
    """The card, the software, and the rates that all else is compared with."""
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "Triton": triton.__version__}
    card = "none" if SMALL else torch.cuda.get_device_properties(0)
    yield {"what": "card", "found": card if SMALL else f"{card.name}, {card.total_memory / 1e9:.0f} GB"}
    yield {"what": "software", "found": ", ".join(f"{name} {found}" for name, found in versions.items())}
    for kind in ("float32", "tf32", "bfloat16"):
        yield {"what": f"{kind} products, TFLOP/s", "found": product_rate(kind) / 1e12}
    yield {"what": "powers of two, G/s", "found": power_rate() / 1e9}
    x = torch.empty(2**16 if SMALL else 2**31, dtype=torch.uint8, device=DEVICE)
    y, host = torch.empty_like(x), torch.empty(len(x) // 8, dtype=torch.uint8)
    moved = 2 * len(x) / seconds_of(lambda: y.copy_(x))
    yield {"what": "copies on the card, read and written, GB/s", "found": moved / 1e9}
    moved = len(host) / seconds_of(lambda: x[: len(host)].copy_(host))
    yield {"what": "copies to the card, GB/s", "found": moved / 1e9}


class Truth(NamedTuple):
    """What `PairScores` should hold, float64[P, A, S] each."""

    log_lds: np.ndarray
    log_lds_excluding_parents: np.ndarray
    parent_share: np.ndarray
    effective_neighbours: np.ndarray


def log_weights(z: torch.Tensor, points: torch.Tensor, sigma: float) -> torch.Tensor:
    """Of every latent at every point, float64[M, N], by direct differences."""
    gaps = torch.cdist(points.double(), z.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    return -gaps / (2 * sigma**2)


def truth(latents: np.ndarray, pairs: np.ndarray, alphas: list[float], sigmas: list[float], arc: bool = False) -> Truth:
    """Scores in float64, with nothing of the engine's: one candidate of each pair at a time."""
    z, own = torch.tensor(latents, device=DEVICE).double(), torch.tensor(pairs, device=DEVICE)
    i, j = z[own[:, 0]], z[own[:, 1]]
    angle = torch.acos((i * j).sum(1) / i.norm(dim=1) / j.norm(dim=1))[:, None]
    out = Truth(*np.empty((4, len(pairs), len(alphas), len(sigmas))))
    for a, alpha in enumerate(alphas):
        u, v = (torch.sin(s * angle) / torch.sin(angle) if arc else s for s in (1 - alpha, alpha))
        for s, sigma in enumerate(sigmas):
            x = log_weights(z, u * i + v * j, sigma)
            every, others = x.logsumexp(1), x.scatter(1, own, -torch.inf).logsumexp(1)
            parents = (x.gather(1, own).logsumexp(1) - every).exp()
            neighbours = (2 * every - (2 * x).logsumexp(1)).exp()
            log_n = math.log(len(z))
            for column, values in zip(out, (every - log_n, others - log_n, parents, neighbours), strict=True):
                column[:, a, s] = values.cpu().numpy()
    return out


def compared(case: str, found: Any, want: Truth, limit: float = LIMIT) -> Row:
    """A row of how far the engine is off; `holds` where it is within the limit everywhere."""
    off = {
        "log LDS": np.abs(found.log_lds - want.log_lds).max(),
        "without parents": np.abs(found.log_lds_excluding_parents - want.log_lds_excluding_parents).max(),
        "parents' share": np.abs(found.parent_share - want.parent_share).max(),
        # (sum w)^2 / sum w^2: twice the error of one sum and once that of the other, with room to spare
        "neighbours / 4": np.abs(found.effective_neighbours / want.effective_neighbours - 1).max() / 4,
    }
    return {"case": case, **{k: float(x) for k, x in off.items()}, "holds": all(bool(x <= limit) for x in off.values())}


def correctness() -> Iterator[Row]:
    """The engine against float64: pairs, the arc, blocks, points, shards; small and large σ; three kinds of latents."""
    from ldsaug_ray.lds import plan_pairs, score_block, score_pairs, score_points, shards

    rng = np.random.default_rng(0)
    n, d, count = (60, 8, 2) if SMALL else (4096, 512, 40)
    gaussian = rng.standard_normal((n, d)).astype(np.float32)
    clustered = (3 * rng.standard_normal((8, d))[rng.integers(0, 8, n)] + 0.3 * gaussian).astype(np.float32)
    for name, z in {"Gaussian": gaussian, "clusters": clustered, "far from 0": gaussian + np.float32(10)}.items():
        norm, pairs = float(np.linalg.norm(z - z.mean(0), axis=1).mean()), plan_pairs(n, count, 0)
        for scale in (0.05, 0.2, 1.0, 5.0):
            found = score_pairs(z, pairs, ALPHAS, [scale * norm], device=DEVICE)
            yield compared(f"{name}, σ = {scale:g} × norm", found, truth(z, pairs, ALPHAS, [scale * norm]))
        sigmas, wide = [0.2 * norm, norm], [0.15, 0.5, 1.2]
        want = truth(z, pairs, wide, sigmas)
        yield compared(f"{name}, any α", score_pairs(z, pairs, wide, sigmas, device=DEVICE), want)
        found = score_pairs(z, pairs, wide, sigmas, dtype="float64", device=DEVICE)
        yield compared(f"{name}, float64", found, want, 1e-9)
        found = score_pairs(z, pairs, wide, sigmas, interpolation="slerp", device=DEVICE)
        yield compared(f"{name}, the arc", found, truth(z, pairs, wide, sigmas, arc=True))
        rows, places, _ = shards.parents_of(pairs)
        work = shards.Work.of(rows, z[rows], places, wide, sigmas, "linear")
        frame = shards.Frame.over(z)
        parts = (shards.part(frame, work, z[c], c.start, device=DEVICE) for c in shards.cut(n, n // 3))
        yield compared(f"{name}, in shards", shards.scores(work, parts, n), want)
        u, v = np.arange(2), np.arange(10, 10 + count)
        block = score_block(z, u, v, ALPHAS, sigmas, device=DEVICE)
        flat = Truth(*(getattr(block, field).reshape(-1, 9, 2) for field in Truth._fields))
        grid = np.stack([np.repeat(u, count), np.tile(v, 2)], axis=1)
        yield compared(f"{name}, a block", flat, truth(z, grid, ALPHAS, sigmas))
        points = z[:count] + rng.standard_normal((count, d)).astype(np.float32)
        found = score_points(z, points, sigmas, device=DEVICE)
        on_device = torch.tensor(z, device=DEVICE), torch.tensor(points, device=DEVICE)
        exact = [log_weights(*on_device, sigma).logsumexp(1).cpu().numpy() - math.log(n) for sigma in sigmas]
        off = float(np.abs(found - np.stack(exact, 1)).max())
        yield {"case": f"{name}, points", "log LDS": off, "holds": off <= LIMIT}


def cdist_seconds(z: np.ndarray, pairs: np.ndarray, sigma: float) -> float:
    """Of torch.cdist + logsumexp on all candidates, from a part of them; the latents are on the card already."""
    latents = torch.tensor(z, device=DEVICE)
    some = torch.tensor(pairs[: max(2, min(len(pairs) // 10, 2048))], device=DEVICE)
    a = torch.tensor(ALPHAS, device=DEVICE)[None, :, None]

    def work() -> None:
        for part in some.split(256):
            points = ((1 - a) * latents[part[:, :1]] + a * latents[part[:, 1:]]).flatten(0, 1)
            torch.logsumexp(torch.cdist(points, latents).square_() / (-2 * sigma**2), 1) - math.log(len(latents))

    return seconds_of(work) * len(pairs) / len(some)


def kernels_ms(work: Callable[[], object]) -> Row:
    """How long the card is busy with one call, by kind; nothing on a CPU."""
    if SMALL:
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        synchronise()
    spent = Counter({"products, ms": 0.0, "weights, ms": 0.0, "copies, ms": 0.0, "else, ms": 0.0})
    for event in found.events():
        if event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        kind = "weights" if event.name == "_add" else "copies" if event.name.startswith("Mem") else "else"
        kind = "products" if any(word in event.name for word in ("gemm", "cutlass", "xmma")) else kind
        spent[f"{kind}, ms"] += event.time_range.elapsed_us() / 1e3
    return dict(spent)


def scores() -> Iterator[Row]:
    """Candidates a second against torch.cdist + logsumexp, and against what the card's own rates allow."""
    from ldsaug_ray.lds import plan_pairs, score_block, score_pairs

    products, fast, powers = product_rate("float32"), product_rate("tf32"), power_rate()
    d = 8 if SMALL else 512
    sizes = [(40, 2, 1), (40, 2, 2)] if SMALL else [(20_000, 5_556, 1), (20_000, 5_556, 16), (200_000, 111_112, 1)]
    for n, count, n_sigmas in sizes:
        z = np.random.default_rng(1).standard_normal((n, d), np.float32)
        norm, pairs = float(np.linalg.norm(z, axis=1).mean()), plan_pairs(n, count, 0)
        sigmas = list(np.geomspace(0.15, 1.0, n_sigmas) * norm) if n_sigmas > 1 else [0.2 * norm]

        def work(z: Any = z, pairs: Any = pairs, sigmas: Any = sigmas) -> object:
            return score_pairs(z, pairs, ALPHAS, sigmas, device=DEVICE)

        row = score_row(f"pairs, {n:,} latents, {n_sigmas} σ", work, len(np.unique(pairs)), 9 * count, n, d, n_sigmas)
        against = {} if n_sigmas > 1 else {"cdist, s": cdist_seconds(z, pairs, sigmas[0])}
        yield limits({**row, **against}, products, fast, powers)
    n, u = (40, 2) if SMALL else (20_000, 1000)
    z = np.random.default_rng(1).standard_normal((n, d), np.float32)
    sigma, columns = 0.2 * float(np.linalg.norm(z, axis=1).mean()), np.arange(u, 2 * u)
    row = score_row(
        f"a block of {u} × {u}, {n:,} latents, 1 σ",
        lambda: score_block(z, np.arange(u), columns, ALPHAS, [sigma], device=DEVICE), 2 * u, 9 * u * u, n, d, 1,
    )  # fmt: skip
    yield limits(row, products, fast, powers)


def score_row(what: str, work: Callable[[], object], rows: int, candidates: int, n: int, d: int, n_sigmas: int) -> Row:
    """Time, memory, the arithmetic of a call: products of `rows` parents, a power of two a candidate, latent and σ."""
    seconds, gb = measured(work)
    row = {"what": what, "candidates": candidates, "s": seconds, "candidates/s": candidates / seconds, "GB": gb}
    return {**row, **kernels_ms(work), "flop": 2.0 * rows * n * d, "powers": float(candidates) * n * n_sigmas}


def limits(row: Row, products: float, fast: float, powers: float) -> Row:
    """Ratios to what the card's rates allow: products, then powers; and to the products alone, float32 and TF32."""
    flop, taken = row.pop("flop"), row.pop("powers")
    cdist = {"× faster than cdist": row.pop("cdist, s") / row["s"]} if "cdist, s" in row else {}
    share = (flop / products + taken / powers) / row["s"]
    ratios = {"× float32 product": row["s"] * products / flop, "× TF32 product": row["s"] * fast / flop}
    return {**row, **cdist, **ratios, "of what its arithmetic allows": f"{share:.0%}, goal {GOAL:.0%}"}


def models(side: int, compiled: bool) -> Iterator[Row]:
    """Images/s of training, encoding and decoding with the paper's model at one size; where a step's time goes."""
    from step import milliseconds, trainer_of
    from torch.utils.flop_counter import FlopCounterMode

    from ldsaug_ray.models import decode_images, posterior_means

    batch, encoded, steps = (2, 2, 1) if SMALL else (32, 128, 16)  # R1 is due every 16 steps
    trainer = trainer_of(side, DEVICE, batch_size=batch, precision="bfloat16", compile=compiled)
    images = np.random.default_rng(0).integers(0, 256, (4 * encoded, side, side, 3), np.uint8)
    what = {"px": side, "compile": "yes" if compiled else "no"}

    def train() -> None:
        for _ in range(steps):
            trainer.train_step(images[:batch])

    seconds, gb = measured(train)
    row = {**what, "what": "train", "precision": "bfloat16", "batch": batch}
    row |= {"images/s": steps * batch / seconds, "GB": gb}
    if not compiled:  # the counter and the profile see the plain operations
        with FlopCounterMode(display=False) as counted:
            trainer.train_step(images[:batch])
        row["of the bfloat16 rate"] = counted.get_total_flops() * steps / seconds / product_rate("bfloat16")
    yield row
    if not compiled:
        spent = milliseconds(trainer, images, batch, steps)
        step = ", ".join(f"{name} {ms:.1f}" for name, ms in spent.items())
        yield {**what, "what": "a step, ms", "precision": "bfloat16", "batch": batch, "by kind": step}
    z = np.random.default_rng(0).standard_normal((4 * encoded, trainer.model.latent_dim), np.float32)
    for precision in ("bfloat16",) if compiled else ("bfloat16", "tf32", "float32"):
        torch.backends.cudnn.allow_tf32 = precision == "tf32"  # on, where nothing was trained: how the stages run
        half = precision == "bfloat16"
        for name, work in {
            "encode": lambda: posterior_means(trainer.model, images, encoded),
            "decode": lambda: decode_images(trainer.model, z, encoded),
        }.items():
            with torch.autocast(DEVICE, torch.bfloat16) if half else nullcontext():
                seconds, gb = measured(work)
            done = {"what": name, "precision": precision, "batch": encoded, "images/s": 4 * encoded / seconds, "GB": gb}
            yield {**what, **done}


# name -> rows, seconds at most; those of a size are asked for each of them
SECTIONS: dict[str, tuple[Callable[..., Iterator[Row]], int]] = {
    "machine": (machine, 40),
    "correctness": (correctness, 80),
    "scores": (scores, 120),
    "models": (lambda side: models(side, False), 50),
    "compiled": (lambda side: models(side, True), 120),
}


def in_a_process(name: str, side: int | None, seconds: float) -> Row:
    """A section's rows, seconds and error, if any: an exception, a crash, or that its time was over."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, __file__, "--section", name, *([] if side is None else ["--sides", str(side)])]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    seconds, started = max(0.0, seconds), time.perf_counter()
    process = subprocess.Popen(
        command, cwd=root, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, told = process.communicate(timeout=seconds)
        error = None if process.returncode == 0 else (told.strip().splitlines() or [f"exit {process.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the compiler's helpers too
        out, told = process.communicate()
        error = f"its {seconds:.0f} s were over"
    except BaseException:  # told to stop: nothing stays on the card
        os.killpg(process.pid, signal.SIGKILL)
        raise
    rows = [json.loads(line.removeprefix(MARK)) for line in out.splitlines() if line.startswith(MARK)]
    if error is None and (wrong := [row["case"] for row in rows if row.get("holds") is False]):
        error = f"off by more than promised: {'; '.join(wrong)}"
    taken = round(time.perf_counter() - started, 1)
    return {"section": name, "px": side, "seconds": taken, "error": error, "rows": rows, "stderr": told[-4000:]}


def table(rows: list[Row]) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))

    def cell(x: Any) -> str:
        if isinstance(x, bool) or not isinstance(x, int | float):
            return {True: "yes", False: "**no**", None: ""}.get(x, str(x))
        return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"

    lines = [columns, ["---"] * len(columns), *([cell(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run the sections, each within its time and all within theirs; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="all that was found, with the errors' last lines")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS), help="these sections")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256], help="of the models, px")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)  # in this process
    arguments = parser.parse_args()
    if not (SMALL or torch.cuda.is_available()):
        raise SystemExit("PyTorch finds no GPU here; with TRITON_INTERPRET=1 small sizes run on a CPU")
    of_a_size = ("models", "compiled")
    if arguments.section:
        sides = arguments.sides if arguments.section in of_a_size else []
        for row in SECTIONS[arguments.section][0](*sides):
            print(MARK + json.dumps(row), flush=True)
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    end, found = time.perf_counter() + 60 * arguments.minutes, []
    for name in arguments.only:
        for side in arguments.sides if name in of_a_size else [None]:
            most = math.inf if SMALL else SECTIONS[name][1]  # on a CPU nobody knows how busy it is
            found.append(in_a_process(name, side, min(most, end - time.perf_counter())))
            size, error = f" {side} px" if side else "", found[-1]["error"]
            words = f"{name}{size}: {found[-1]['seconds']:.0f} s, {len(found[-1]['rows'])} rows"
            print(words if error is None else f"{words}; FAILED: {error}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False))
    for title, names in {**{name: [name] for name in SECTIONS if name not in of_a_size}, "models": of_a_size}.items():
        if rows := [row for part in found if part["section"] in names for row in part["rows"]]:
            print(f"\n### {title}\n\n{table(rows)}")
    if any(part["error"] for part in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
