"""The density engine against its peers on the same arrays, one process each, and against the bare matrix product.

    .venv/bin/python benchmarks/density.py [--candidates 50000] [--latents 20000] [--dim 512] [--only NAME …] [--curves]
    .venv/bin/python benchmarks/density.py --quick      small sizes, every answer checked; no time is judged

The floor is the float32 product of the distinct parents with the latents, the least that any exact method needs. Peers
that would take minutes score a part of the candidates; their time is then scaled up by the number of candidates, and
the table says so. The product is timed again beside every method, because shared machines drift: ratios are to that.
pykeops and torch-kde take part where they are installed (pip install pykeops torch-kde; pykeops wants a C++ compiler).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ldsaug_ray.lds import plan_pairs, score_block, score_pairs, score_points

INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
                "asimd", "sve", "sve2", "i8mm", "bf16")  # fmt: skip
ALPHAS = [m / 10 for m in range(1, 10)]
Scorer = Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # train [N, d], pairs [P, 2], sigma -> log LDS [P, 9]


def points_of(train: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The candidates themselves, float32[P * 9, d], for methods that need them."""
    a = np.array(ALPHAS, np.float32)[None, :, None]
    return ((1 - a) * train[pairs[:, 0], None] + a * train[pairs[:, 1], None]).reshape(-1, train.shape[1])


def ours(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """lds.score_pairs."""
    return score_pairs(train, pairs, ALPHAS, [sigma]).log_lds[..., 0]


def ours_as_points(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """lds.score_points on the candidates themselves: what the pairs' structure saves."""
    return score_points(train, points_of(train, pairs), [sigma])[:, 0].reshape(-1, 9)


def torch_cdist(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """torch.cdist and logsumexp, 512 candidates at a time."""
    z, out = torch.from_numpy(train), []
    for points in torch.from_numpy(points_of(train, pairs)).split(512):
        out.append(torch.logsumexp(torch.cdist(points, z).square_().mul_(-0.5 / sigma**2), 1))
    return (torch.cat(out).numpy() - np.log(len(train))).reshape(-1, 9)


def sklearn_kde(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """sklearn.neighbors.KernelDensity; leaf_size = N, because with its defaults it is wrong in many dimensions."""
    from sklearn.neighbors import KernelDensity

    tree = KernelDensity(bandwidth=sigma, leaf_size=len(train), rtol=0, atol=0).fit(train)
    log_norm = train.shape[1] / 2 * np.log(2 * np.pi * sigma**2)
    return (tree.score_samples(points_of(train, pairs)) + log_norm).reshape(-1, 9)


def keops(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """pykeops: a compiled log-sum-exp reduction over symbolic tensors."""
    from pykeops.torch import LazyTensor

    x, y = torch.from_numpy(points_of(train, pairs)), torch.from_numpy(train)
    gaps = ((LazyTensor(x[:, None]) - LazyTensor(y[None])) ** 2).sum(-1)
    return ((-gaps * (0.5 / sigma**2)).logsumexp(1).numpy()[:, 0] - np.log(len(train))).reshape(-1, 9)


def torch_kde(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """torch-kde's KernelDensity."""
    from torchkde import KernelDensity

    model = KernelDensity(bandwidth=sigma, kernel="gaussian").fit(torch.from_numpy(train))
    log_norm = train.shape[1] / 2 * np.log(2 * np.pi * sigma**2)
    parts = [model.score_samples(part) for part in torch.from_numpy(points_of(train, pairs)).split(512)]
    return (torch.cat(parts).numpy() + log_norm).reshape(-1, 9)


def faiss_flat(train: np.ndarray, pairs: np.ndarray, sigma: float) -> np.ndarray:
    """FAISS flat search for the 100 nearest, and their weights alone: a lower bound of the density, not the density."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(train.shape[1])
    index.add(train)
    squared = index.search(points_of(train, pairs), min(100, len(train)))[0]
    return (np.logaddexp.reduce(-squared / (2 * sigma**2), axis=1) - np.log(len(train))).reshape(-1, 9)


# name -> scorer, share of the candidates that it is given, whether it gives the density itself
METHODS: dict[str, tuple[Scorer, float, bool]] = {
    "ldsaug_ray": (ours, 1.0, True),
    "ldsaug_ray, points": (ours_as_points, 0.2, True),
    "torch.cdist + logsumexp": (torch_cdist, 0.1, True),
    "FAISS flat, 100 nearest": (faiss_flat, 0.1, False),
    "torch-kde": (torch_kde, 0.02, True),
    "KeOps": (keops, 0.02, True),
    "scikit-learn KernelDensity": (sklearn_kde, 0.005, True),
}


def product_seconds(train: np.ndarray, pairs: np.ndarray) -> float:
    """Seconds of the bare float32 product (distinct parents x latents x d) on all threads, into memory at hand."""
    rows, z = torch.from_numpy(train[np.unique(pairs)]), torch.from_numpy(train)
    out = torch.empty(len(rows), 4096)
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        for tile in z.split(4096):
            torch.mm(rows, tile.T, out=out[:, : len(tile)] if len(tile) < 4096 else out)
        best = min(best, time.perf_counter() - started)
    return best


def measure(name: str, folder: Path, sigma: float, threads: int) -> dict[str, float]:
    """In a process of its own: seconds for all candidates, and the answer saved for comparison."""
    torch.set_num_threads(threads)
    train, pairs = np.load(folder / "train.npy"), np.load(folder / "pairs.npy")
    scorer, share, _ = METHODS[name]
    part = pairs[: max(2, int(len(pairs) * share))]
    floor = product_seconds(train, pairs)
    scorer(train, part[:2], sigma)  # compile, start threads
    seconds = []
    for _ in range(3 if share == 1 else 1):
        started = time.perf_counter()
        log_lds = scorer(train, part, sigma)
        seconds.append(time.perf_counter() - started)
    floor = min(floor, product_seconds(train, pairs))
    np.save(folder / "answer.npy", log_lds)
    return {"seconds": min(seconds) * len(pairs) / len(part), "floor": floor, "scored": len(part) * len(ALPHAS)}


def compare(train: np.ndarray, pairs: np.ndarray, sigma: float, names: list[str], threads: int) -> None:
    """The table of docs/benchmarks.md; ends with an error where an exact method disagrees with float64."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(
        title=f"{len(pairs) * 9:,} candidates x {len(train):,} latents x {train.shape[1]} d, {threads} threads"
    )
    for column in ("method", "seconds", "x bare product", "ldsaug_ray is faster by", "off by, log LDS", "scored"):
        table.add_column(column, justify="left" if column == "method" else "right")
    truth = score_pairs(train, pairs[:40], ALPHAS, [sigma], dtype="float64").log_lds[..., 0]
    own: float | None = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "train.npy", train)
        np.save(folder / "pairs.npy", pairs)
        for name in names:
            command = [sys.executable, __file__, "--measure", name, str(folder), repr(sigma), str(threads)]
            ended = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
            )
            if ended.returncode:
                table.add_row(name, ended.stderr.strip().splitlines()[-1][:60])
                continue
            found = json.loads(ended.stdout.splitlines()[-1])
            ratio = found["seconds"] / found["floor"]
            own = ratio if own is None else own
            answer = np.load(folder / "answer.npy")
            n = min(len(answer), len(truth))
            off = float(np.abs(answer[:n] - truth[:n]).max())
            if METHODS[name][2] and name != "torch-kde" and off > 1e-4:
                raise SystemExit(f"{name} is off by {off:g} in log LDS")
            table.add_row(
                name,
                f"{found['seconds']:,.2f}",
                f"{ratio:,.2f}",
                f"{ratio / own:,.1f}x",
                f"{off:.1e}",
                f"{found['scored']:,}",
            )
    console.print(table)


def processor() -> str:
    """Its name, the vector and matrix instructions that it has, and what PyTorch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return f"{platform.processor() or platform.machine()}; PyTorch: {torch.backends.cpu.get_cpu_capability()}"
    found = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = set(found.get("flags", found.get("Features", "")).split())
    sets = [name for name in INSTRUCTIONS if name in flags]
    name = found.get("model name", platform.machine())
    family = "/".join(found[key] for key in ("cpu family", "model", "stepping") if key in found)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} (family/model/stepping {family}); {' '.join(sets) or 'no vectors'}; PyTorch: {capability}"


def clusters(n: int, d: int, *, in_order: bool = False) -> np.ndarray:
    """20 centres from N(0, I), 0.3 of it around each; in_order: one after another, as folders of classes are read."""
    rng = np.random.default_rng(2)
    of = rng.integers(0, 20, n)
    centres = rng.standard_normal((20, d))[np.sort(of) if in_order else of]
    return (centres + 0.3 * rng.standard_normal((n, d))).astype(np.float32)


def outlier(n: int, d: int) -> np.ndarray:
    """N(0, I), one latent of them a thousand times as far from the origin."""
    z = np.random.default_rng(3).standard_normal((n, d), np.float32)
    z[n // 3] *= 1000
    return z


def cpu_seconds(z: np.ndarray, pairs: np.ndarray, sigmas: list[float]) -> float:
    """Of all threads: what other programs on the cores change least."""
    started = time.process_time()
    score_pairs(z, pairs, ALPHAS, sigmas)
    return time.process_time() - started


def sigmas_table(n: int, d: int, n_pairs: int, rounds: int) -> None:
    """Every sigma against sigma = 0.2 x mean norm on several kinds of latents, and 16 of them against one.

    Ratios of processor times taken one after the other in a round; least and median of the rounds. Ends with an error
    where a score is off.
    """
    from approximate import faces, gaussian  # beside this file

    scales = (0.05, 0.07, 0.085, 0.1, 0.14, 0.3, 1.0, 5.0)
    tasks = {f"{m:g}": [m] for m in scales}
    tasks |= {f"16 of {low:g} to 5": list(np.geomspace(low, 5, 16)) for low in (0.2, 0.05)}
    kinds = {"Gaussian": gaussian, "clusters": clusters, "clusters in order": partial(clusters, in_order=True)}
    kinds |= {"faces": faces, "an outlier": outlier}
    table = Table(
        title=f"x the time at 0.2 x mean norm: least (median) of {rounds}; {9 * n_pairs:,} candidates, d = {d}"
    )
    columns = ["latents", "N", "0.2, x product", *tasks, "off by"]
    for column in columns:
        table.add_column(column, justify="left" if column == "latents" else "right")
    for kind, make in kinds.items():
        try:
            z = make(n, d)
        except ValueError as e:  # no pictures at hand
            table.add_row(kind, f"not measured: {e}")
            continue
        norm, pairs = float(np.median(np.linalg.norm(z - z.mean(0), axis=1))), plan_pairs(len(z), n_pairs, 0)
        floors: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in tasks}
        score_pairs(z, pairs[:9], ALPHAS, [0.05 * norm, 0.2 * norm])  # compile
        for _ in range(rounds):
            started = time.process_time()
            rows = torch.from_numpy(z[np.unique(pairs)])
            for tile in torch.from_numpy(z).split(4096):
                torch.mm(rows, tile.T)
            floor = time.process_time() - started
            for name, some in tasks.items():
                one, many = (cpu_seconds(z, pairs, [m * norm for m in scales_]) for scales_ in ([0.2], some))
                ratios[name].append(many / one)
                floors.append(one / floor)
        sigmas, some_pairs = [m * norm for m in scales], pairs[:20]
        got, want = (score_pairs(z, some_pairs, ALPHAS, sigmas, dtype=kind).log_lds for kind in ("float32", "float64"))
        off = float(np.abs(got - want).max())
        if off > 1e-4:
            raise SystemExit(f"{kind}: log LDS is off by {off:g}")
        cells = [f"{min(x):.2f} ({np.median(x):.2f})" for x in (floors, *ratios.values())]
        table.add_row(kind, f"{len(z):,}", *cells, f"{off:.0e}")
    Console(width=None if Console().is_terminal else 200).print(table)


def timed(work: Callable[[], object], repeats: int = 3) -> float:
    """Least seconds of some runs, once warm."""
    work()
    best = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def curves(d: int, largest: int) -> None:
    """More sigmas, more candidates of the same parents, blocks, more latents: each beside its own bare product."""
    rng = np.random.default_rng(1)
    table = Table(title=f"d = {d}")
    for column in ("what", "seconds", "x bare product", "G kernel values/s"):
        table.add_column(column, justify="left" if column == "what" else "right")

    def row(what: str, seconds: float, floor: float, values: float) -> None:
        table.add_row(what, f"{seconds:.2f}", f"{seconds / floor:.2f}", f"{values / seconds / 1e9:.2f}")

    z = rng.standard_normal((20_000, d)).astype(np.float32)
    norm = float(np.linalg.norm(z, axis=1).mean())
    pairs = plan_pairs(len(z), 5_556, 0)
    for n in (1, 16):
        sigmas = list(np.geomspace(0.15, 1.0, n) * norm) if n > 1 else [0.2 * norm]
        seconds = timed(lambda s=sigmas: score_pairs(z, pairs, ALPHAS, s))
        row(
            f"50k candidates, 20k latents, {n} sigmas",
            seconds,
            product_seconds(z, pairs),
            9.0 * len(pairs) * len(z) * n,
        )
    many = plan_pairs(len(z), 111_112, 0)
    seconds = timed(lambda: score_pairs(z, many, ALPHAS, [0.2 * norm]), 1)
    row("1M candidates, 20k latents", seconds, product_seconds(z, many), 9.0 * len(many) * len(z))
    u, v = np.arange(1000), np.arange(1000, 2000)
    seconds = timed(lambda: score_block(z, u, v, ALPHAS, [0.2 * norm]), 1)
    row("9M candidates of a 1000 x 1000 block", seconds, product_seconds(z, np.stack([u, v], 1)), 9e6 * len(z))
    for n in (5_000, 20_000, 100_000, 300_000, 1_000_000):
        if n > largest:
            break
        z = rng.standard_normal((n, d), np.float32)
        some = plan_pairs(n, 1_112, 0)
        seconds = timed(lambda z=z, some=some: score_pairs(z, some, ALPHAS, [0.2 * norm]), 1)
        row(f"10k candidates, {n:,} latents", seconds, product_seconds(z, some), 9.0 * len(some) * n)
    Console(width=None if Console().is_terminal else 120).print(table)


def main() -> None:
    """Command line."""
    if sys.argv[1:2] == ["--measure"]:
        name, folder, sigma, threads = sys.argv[2:]
        print(json.dumps(measure(name, Path(folder), float(sigma), int(threads))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=50_000)
    parser.add_argument("--latents", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--scale", type=float, default=0.2, help="sigma as a share of the mean norm")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS), help="these methods")
    parser.add_argument("--curves", action="store_true", help="instead: more sigmas, candidates, latents, and blocks")
    parser.add_argument("--sigmas", action="store_true", help="of --curves the first table alone")
    parser.add_argument("--rounds", type=int, default=3, help="of the first table of --curves")
    parser.add_argument("--largest", type=int, default=300_000, help="most latents of --curves")
    parser.add_argument("--quick", action="store_true", help="small sizes, for the answers only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, z = np.random.default_rng(0).standard_normal((2, 4096, arguments.dim), np.float32)
    rate = 2 * rows.size * len(z) / timed(lambda: torch.mm(torch.from_numpy(rows), torch.from_numpy(z).T)) / 1e9
    print(f"{processor()}\n{arguments.threads} threads; float32 product {rate:,.0f} GFLOP/s", flush=True)
    if arguments.curves:
        n = arguments.latents
        sigmas_table(n, arguments.dim, -(-arguments.candidates // 9), arguments.rounds)
        if arguments.sigmas:
            return
        curves(arguments.dim, arguments.largest)
        return
    n, d, candidates = (1_000, 64, 900) if arguments.quick else (arguments.latents, arguments.dim, arguments.candidates)
    train = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    sigma = arguments.scale * float(np.linalg.norm(train, axis=1).mean())
    compare(train, plan_pairs(n, -(-candidates // 9), 0), sigma, arguments.only, arguments.threads)


if __name__ == "__main__":
    main()
