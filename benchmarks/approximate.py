"""The approximate backend and the race against exact scores: kernel evaluations, time, errors, intervals, decisions.

    .venv/bin/python benchmarks/approximate.py [--latents 20000] [--candidates 10000] [--data gaussian faces]
    .venv/bin/python benchmarks/approximate.py --quick        small sizes; every decision checked, no time judged

`gaussian` is standard normal. `faces` are posterior means of a linear VAE (probabilistic PCA) of real faces at 32 px,
read from LDSAUG_SHARED (default ../shared); beyond 8,000 latents they are shifted and mirrored crops of the same faces.
Every row is timed next to its own run of exact scores, because shared machines drift: "x exact" is that ratio. `evals`
is the share of exact's kernel values (candidate and latent), `products` that of its inner products (parent and latent),
in which the search for neighbours counts. The top 20 % are selected, by count and by the tau that equals it.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ldsaug_ray.lds import (
    Approximation,
    LatentIndex,
    PairScores,
    approximate_pairs,
    plan_pairs,
    race_pairs,
    score_pairs,
)
from ldsaug_ray.lds._frame import Frame
from ldsaug_ray.lds.neighbours import nearest

ALPHAS = [m / 10 for m in range(1, 10)]
FACES, PIXELS, MARGIN = 8000, 32, 4
OFF = 1e-5  # what exact scores may be off themselves


def gaussian(n: int, d: int) -> np.ndarray:
    """Standard normal latents."""
    return np.random.default_rng(0).standard_normal((n, d), np.float32)


def faces(n: int, d: int) -> np.ndarray:
    """Posterior means of probabilistic PCA (Tipping and Bishop 1999, a linear VAE's optimum) of n crops of faces."""
    import pyarrow.parquet as pq
    from PIL import Image

    folder = Path(os.environ.get("LDSAUG_SHARED") or Path(__file__).parents[1] / "shared") / "data/celeba-10k"
    side, pictures = PIXELS + MARGIN, []
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(file, columns=["image"])["image"]:
            image = Image.open(io.BytesIO(row.as_py()["bytes"])).convert("RGB")
            top = (image.height - image.width) // 2
            square = image.crop((0, top, image.width, top + image.width))
            pictures.append(np.asarray(square.resize((side, side), Image.Resampling.BILINEAR)))
    whole = np.stack(pictures[: min(FACES, n)])
    middle = MARGIN // 2
    offsets = [(middle, middle, 1)] + [
        (y, x, flip) for y in range(MARGIN + 1) for x in range(MARGIN + 1) for flip in (1, -1)
    ]
    crops = [
        whole[:, y : y + PIXELS, x : x + PIXELS][:, :, ::flip].reshape(len(whole), -1)
        for y, x, flip in offsets[: -(-n // len(whole))]
    ]
    mean = np.mean([c.mean(0) for c in crops], axis=0)
    covariance = torch.zeros(len(mean), len(mean))
    for crop in crops:
        x = torch.from_numpy((crop - mean).astype(np.float32))
        covariance += x.T @ x / (len(crops) * len(whole))
    values, vectors = (t.numpy() for t in torch.linalg.eigh(covariance.double()))
    values, vectors = values[::-1][:d], vectors[:, ::-1][:, :d]
    noise = (float(covariance.trace()) - values.sum()) / (len(mean) - d)
    weights = vectors * (np.sqrt(np.maximum(values - noise, 0)) / values)
    return np.concatenate([((c - mean) @ weights).astype(np.float32) for c in crops])[:n]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """The densest, ties by lower candidate number."""
    chosen = np.zeros(scores.size, bool)
    chosen[np.lexsort((np.arange(scores.size), -scores.ravel()))[:count]] = True
    return chosen


def compare(name: str, z: np.ndarray, pairs: np.ndarray, scale: float, kinds: list[str], strict: bool) -> Table:
    """One table: every method on these latents at this bandwidth, with and without parents."""
    sigma = scale * float(np.linalg.norm(z - z.mean(0), axis=1).mean())
    table = Table(title=f"{name}: {9 * len(pairs):,} candidates x {len(z):,} latents x {z.shape[1]} d, sigma {scale}")
    for column in ("method", "parents", "evals", "products", "x exact", "|error| median", "max", "covered", "differ"):
        table.add_column(column, justify="left" if column == "method" else "right")
    parents = np.unique(pairs)

    def exact() -> PairScores:
        return score_pairs(z, pairs, ALPHAS, [sigma])

    truth, count = exact(), 9 * len(pairs) // 5
    indexes = {}
    for kind in kinds:
        settings = Approximation(index=kind)  # type: ignore[arg-type]
        took = seconds(lambda s=settings, k=kind: indexes.update({k: LatentIndex.build(z, s)}))
        table.add_row(f"build {kind}", "", "", "", f"{took / seconds(exact):.2f}", "", "", "", "")
    for excluded in (True, False):
        field = "log_lds_excluding_parents" if excluded else "log_lds"
        want = getattr(truth, field).ravel()
        chosen = top(want, count)
        ranked = np.sort(want)[::-1]
        tau = float(np.exp((ranked[count - 1] + ranked[count]) / 2))

        def row(
            method, scores, evaluations, products, ratio, selected, field=field, want=want, chosen=chosen, e=excluded
        ):  # type: ignore[no-untyped-def]
            got, low, high = (getattr(scores, field + end).ravel() for end in ("", "_low", "_high"))
            error = np.abs(got - want)
            covered = ((low <= want + OFF) & (want <= high + OFF)).mean()
            differ = int((selected.ravel() != chosen).sum())
            if strict and "race" in method and differ:
                raise SystemExit(f"{method} made {differ} different decisions")
            table.add_row(
                method,
                "without" if e else "with",
                f"{evaluations:.1%}",
                f"{products:.1%}",
                f"{ratio:.2f}",
                f"{np.median(error):.4f}",
                f"{error.max():.3f}",
                f"{covered:.2%}",
                str(differ),
            )

        for kind, index in indexes.items():
            settings = Approximation(index=kind)  # type: ignore[arg-type]
            started = time.perf_counter()
            got = approximate_pairs(z, pairs, ALPHAS, [sigma], approximation=settings, index=index)
            took = time.perf_counter() - started
            share = min(1.0, (settings.sample + 2 * settings.neighbours) / len(z))
            searched = 1.0 if kind == "flat" else 1 / 16  # a sixteenth of the lists, by default
            row(
                f"faiss {kind}",
                got,
                share,
                min(1.0, settings.sample / len(z)) + searched,
                took / seconds(exact),
                top(getattr(got, field), count),
            )
        for method, options in (
            ("race, top count", {"top_count": count}),
            ("race, tau", {"tau": tau}),
            ("race, top count, bfloat16", {"top_count": count, "products": "bfloat16"}),
        ):
            if not tau > 0:
                continue
            started = time.perf_counter()
            race = race_pairs(z, pairs, ALPHAS, sigma, exclude_parents=excluded, **options)  # type: ignore[arg-type]
            took = time.perf_counter() - started
            row(
                method,
                race.scores,
                race.evaluations / race.exact_evaluations,
                race.inner_products / (len(parents) * len(z)) + 1,
                took / seconds(exact),
                race.selected,
            )
        lists = nearest(Frame.over(z), z, z[parents], parents, 64)
        started = time.perf_counter()
        race = race_pairs(z, pairs, ALPHAS, sigma, exclude_parents=excluded, top_count=count, neighbours=lists)
        took = time.perf_counter() - started
        row(
            "race, top count, lists at hand",
            race.scores,
            race.evaluations / race.exact_evaluations,
            race.inner_products / (len(parents) * len(z)),
            took / seconds(exact),
            race.selected,
        )
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--scales", type=float, nargs="*", default=[0.2, 0.3], help="sigma as a share of the mean norm")
    parser.add_argument("--data", nargs="*", choices=["gaussian", "faces"], default=["gaussian", "faces"])
    parser.add_argument("--kinds", nargs="*", choices=["flat", "ivf", "ivfpq"], default=["flat", "ivf", "ivfpq"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="small sizes, for the answers only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.latents, arguments.dim, arguments.candidates = 2000, 32, 450
        arguments.data, arguments.kinds, arguments.scales = ["gaussian"], ["flat", "ivf"], [0.3]
    console = Console(width=None if Console().is_terminal else 140)
    pairs = plan_pairs(arguments.latents, -(-arguments.candidates // 9), 0)
    for name in arguments.data:
        z = {"gaussian": gaussian, "faces": faces}[name](arguments.latents, arguments.dim)
        race_pairs(z[:500], plan_pairs(500, 9, 0), ALPHAS, 1.0, top_count=9)  # compile
        for scale in arguments.scales:
            console.print(compare(name, z, pairs, scale, arguments.kinds, arguments.quick))


if __name__ == "__main__":
    main()
