"""Coordinates in which float32 keeps its digits, and a measurement of how many it keeps. Private to the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from ldsaug_ray.lds import _compiled

Array = NDArray[np.float64]

EPSILON = float(np.finfo(np.float32).eps)
FARTHEST = 1e16  # largest mean squared norm, of the typical one: float32's range has to hold the farthest latents
FEW, FEW_NUMBERS = 1024, 2**22  # latents that are looked at; their numbers, from some thousand dimensions on
OUT, THROWN = 10.0, 0.1  # far out, and a mean that is off: by so many times the distance that nine tenths are within
BLOCK_BYTES = 2**20  # of float64 rows that one thread adds up
LEAST_BLOCK = 32  # of them, so that the sums of all blocks take little beside the latents in any dimension
LEAST_SIZE = 1e-4  # of a typical squared norm: less is taken for so much, since what rounds is at least the latter
SAMPLE = 128  # rows and latents whose inner products are checked


def evenly(n: int, k: int) -> NDArray[np.int64]:
    """At most k of 0..n-1, int64[.] ascending, from end to end."""
    return np.unique(np.linspace(0, n - 1, k).astype(np.int64))


@dataclass(frozen=True)
class Rows:
    """Points in a frame: vectors [k, d], their squared norms [k] and inner products with the origin [k]."""

    vectors: NDArray[np.floating]
    norms: Array
    along: Array

    def norms_from(self, shift: float) -> NDArray[np.floating]:
        """Squared norms less `shift`, in the vectors' type."""
        return (self.norms - shift).astype(self.vectors.dtype)

    def tensor(self) -> torch.Tensor:
        """The vectors, for a matrix product."""
        return torch.from_numpy(self.vectors)


class Frame:
    """Coordinates in which the latents' mean is 0 and their typical norm lies between 1 and 2.

    Subtracting the mean changes no distance, and keeps float32's digits for the differences. A few latents far out do
    not count: where they throw the mean off, that of some of the others is taken.
    The scale is a power of two: it rounds nothing. `typical_norm` is the typical squared norm, the mean of some latents
    that are not far out: float32 keeps what squared norms differ from it, which in many dimensions is little.
    """

    def __init__(self, mean: Array, scale: float, typical_norm: float) -> None:
        self.mean, self.scale, self.typical_norm = mean, scale, typical_norm
        self.origin: Array = -mean / scale  # of the latents' own coordinates
        self.origin_norm = float(self.origin @ self.origin)

    @classmethod
    def over(cls, train: NDArray[np.floating]) -> Frame:
        """The frame of latents [N, d]."""
        # sums of fixed blocks, added in order: the same for any number of threads
        size = max(LEAST_BLOCK, BLOCK_BYTES // (8 * train.shape[1]))
        sums = np.empty((-(-len(train) // size), train.shape[1]))
        squares = np.empty(len(sums))
        _compiled.in_threads(_compiled.add_rows, len(sums), train, size, sums)
        mean: Array = sums.sum(axis=0) / len(train)
        few = min(FEW, max(LEAST_BLOCK, FEW_NUMBERS // train.shape[1]))
        some = np.asarray(train[evenly(len(train), few)], np.float64)
        away = np.linalg.norm(some - np.median(some, axis=0), axis=1)
        within = np.quantile(away, 0.9)
        some = some[away <= OUT * within]
        middle: Array = some.mean(axis=0)
        if np.linalg.norm(mean - middle) > THROWN * within:
            mean = middle
        _compiled.in_threads(_compiled.add_squares, len(sums), train, mean, size, squares)
        typical = float(((some - mean) ** 2).sum(axis=1).mean())
        spread = math.sqrt(max(typical, squares.sum() / len(train) / FARTHEST))
        scale = 2.0 ** math.floor(math.log2(spread)) if spread > 0 else 1.0
        return cls(mean, scale, (spread / scale) ** 2)

    def rows(self, points: NDArray[np.floating], dtype: DTypeLike) -> Rows:
        """Points [k, d] of the latents' own coordinates; float32 vectors are rounded once."""
        out = Rows(np.empty(points.shape, dtype), np.empty(len(points)), np.empty(len(points)))
        _compiled.in_threads(
            _compiled.centre_rows,
            len(points),
            points,
            self.mean,
            1 / self.scale,
            self.origin,
            out.vectors,
            out.norms,
            out.along,
        )
        return out


@dataclass(frozen=True)
class Rounding:
    """How far a squared distance is off in float32, relative to (||a|| + ||b||)^2: four times the root mean square of
    some, and the most. Rows that equal each other are among them, whose products are the largest there are.
    """

    usual: float
    most: float

    @classmethod
    def measured(
        cls, frame: Frame, parents: NDArray[np.floating], rows: Rows, shard: NDArray[np.floating], device: str = "cpu"
    ) -> Rounding:
        """From products of SAMPLE rows with SAMPLE latents, in both types, the single one where it will be computed."""
        a = evenly(len(parents), SAMPLE)
        b = evenly(len(shard), SAMPLE)
        single, exact = (frame.rows(shard[b], dtype) for dtype in (np.float32, np.float64))
        on_device = torch.from_numpy(rows.vectors[a]).to(device), single.tensor().T.to(device)
        cross = torch.mm(*on_device).cpu().numpy()
        found = single.norms_from(frame.typical_norm) - 2 * cross
        true_cross = torch.mm(frame.rows(parents[a], np.float64).tensor(), exact.tensor().T).numpy()
        true = exact.norms_from(frame.typical_norm) - 2 * true_cross
        size = (np.sqrt(rows.norms[a])[:, None] + np.sqrt(exact.norms)) ** 2
        least = max(LEAST_SIZE * frame.typical_norm, np.finfo(np.float64).tiny)
        off = np.abs(found - true) / np.maximum(size, least)
        return cls(max(4 * float(np.sqrt((off**2).mean())), EPSILON / 8), max(float(off.max()), EPSILON))
