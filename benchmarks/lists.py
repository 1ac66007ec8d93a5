"""What scores by FAISS's compressed inverted lists cost at any N: fitted to small measurements, checked on larger ones.

    .venv/bin/python benchmarks/lists.py [--dim 128] [--checked 131072 262144]

Seconds of one thread, over N latents in L lists of which p are probed, are taken to be

    train  a + P (b + c L)          k-means over P points, 64 a list and at least 16,384
    add    N (e + f L)              each latent finds its list
    score  M g + R (L h + N p/L k)  M candidates; each of R parents finds its lists, and looks at the codes in them

with a, b, c, ... >= 0 by least squares over several N, L and p. They are the processor's, so that other work matters
little. Standard normal latents: how long a search takes hardly depends on where they lie, as long as lists are about
equally long.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls

from ldsaug_ray.lds import Approximation, LatentIndex, approximate_pairs, plan_pairs
from ldsaug_ray.lds._near_far import OrderedLatents

ALPHAS = [m / 10 for m in range(1, 10)]
PAIRS = 1000
FITTED = ((16_384, 32, 1), (16_384, 256, 1), (16_384, 256, 128), (65_536, 128, 64), (65_536, 1024, 16))  # N, L, p


@dataclass(frozen=True)
class Costs:
    """Seconds of one thread: of training, adding and scoring, as in the module's formulas."""

    train: float
    add: float
    score: float


def terms(n: int, lists: int, probes: int, candidates: int, parents: int) -> tuple[list[float], ...]:
    """What the formulas multiply a, b, ... by."""
    points = float(min(n, 64 * max(lists, 256)))
    train, add = [1.0, points, points * lists], [float(n), float(n) * lists]
    return train, add, [float(candidates), float(parents) * lists, float(parents) * n * probes / lists]


def measured(n: int, d: int, lists: int | None = None, probes: int | None = None) -> tuple[Costs, tuple[int, ...]]:
    """Build and score on this thread; gives also lists, probes, candidates and parents."""
    z = np.random.default_rng(0).standard_normal((n, d), np.float32)
    settings = Approximation(index="ivfpq", lists=lists, probes=probes)
    started = time.process_time()
    index = LatentIndex.trained(z, settings)
    trained = time.process_time()
    index.add(z)
    added = time.process_time()
    pairs, ordered = plan_pairs(n, PAIRS, 0), OrderedLatents.of(z, settings.seed)
    given = {"approximation": settings, "index": index, "latents": ordered}
    approximate_pairs(z, pairs[:2], ALPHAS, [0.2 * d**0.5], **given)  # compiled, and all pages touched
    begun = time.process_time()
    approximate_pairs(z, pairs, ALPHAS, [0.2 * d**0.5], **given)
    costs = Costs(trained - started, added - trained, time.process_time() - begun)
    there = int(index.structure["lists"])
    return costs, (there, probes or max(1, there // 16), PAIRS * len(ALPHAS), len(np.unique(pairs)))


@dataclass(frozen=True)
class Model:
    """The formulas with their constants."""

    dim: int
    constants: tuple[np.ndarray, ...]  # of train, add, score

    @classmethod
    def fitted(cls, d: int, at: Sequence[tuple[int, int, int]] = FITTED) -> Model:
        """To latents of d numbers; at: how many of them, lists, and lists probed."""
        found = [measured(n, d, lists, probes) for n, lists, probes in at]
        rows = [terms(n, *how) for (n, _, _), (_, how) in zip(at, found, strict=True)]
        seconds = [(c.train, c.add, c.score) for c, _ in found]
        # each row over its seconds: relative errors count
        return cls(
            d,
            tuple(
                nnls(np.array([r[k] for r in rows]) / np.array([[s[k]] for s in seconds]), np.ones(len(rows)))[0]
                for k in range(3)
            ),
        )

    def predicted(self, n: int, candidates: int, parents: int, probes: int | None = None) -> Costs:
        """Of n latents, with as many lists as the engine makes; probes: none: a sixteenth of them."""
        lists = int(Approximation(index="ivfpq").structure(n, self.dim)["lists"])
        per = terms(n, lists, probes or max(1, lists // 16), candidates, parents)
        return Costs(*(float(np.dot(k, t)) for k, t in zip(self.constants, per, strict=True)))


def main() -> None:
    """Print seconds predicted / measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--checked", type=int, nargs="+", default=[131_072, 262_144], help="latents")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = Model.fitted(asked.dim)
    print("| latents | lists | train, s | add, s | score, s |\n| --- | --- | --- | --- | --- |")
    for n in asked.checked:
        found, (lists, _, candidates, parents) = measured(n, asked.dim)
        guess = model.predicted(n, candidates, parents)
        pairs = zip(vars(guess).values(), vars(found).values(), strict=True)
        both = (f"{g:.2f} / {f:.2f} = {g / f:.2f}" for g, f in pairs)
        print(f"| {n:,} | {lists:,} | {' | '.join(both)} |", flush=True)


if __name__ == "__main__":
    main()
