"""The fair judge of samplers: measures at equal authenticity.

Copies of the training images beat every honest sampler in Fréchet distance, so a rule is set against the *reference
curve*: noise about training latents, of several widths. Its gain is what its Fréchet distance lies below the curve's
where the curve has the rule's AuthPct, as a share of the curve's; of precision and coverage, what they lie above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.metrics import OF_SETS, Sample, measure_set
from ldsaug_ray.metrics.bootstrap import redrawn_means
from ldsaug_ray.metrics.copies import authentic
from ldsaug_ray.metrics.measures import RESAMPLES, moves_of

COMPARED = ("frechet", "precision", "coverage")
MEASURED = (*COMPARED, "kernel_distance", "density")
FROM_IMAGES, FROM_RECONSTRUCTIONS = "training images", "their reconstructions"


@dataclass(frozen=True, eq=False)
class Point:
    """A sampler: values by measure, and by authenticity's name for either reference; and how these scatter.

    redrawn: float64[R] by measure: the values where as many images are drawn anew.
    """

    name: str
    values: Mapping[str, float]
    redrawn: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Gain:
    """Of one measure at equal authenticity, with 95 % limits; the curve's value there."""

    gain: float
    low: float
    high: float
    curve: float


def point_of(name: str, sample: Sample, reconstructions: NDArray[np.float32], seed: int) -> Point:
    """Measure a sampler's images.

    Args:
        name: of the sampler.
        sample: its features, with test images as the reference and training images.
        reconstructions: float32[T, C], features of the training images once encoded and decoded.
        seed: of the draws; the reference's draws are the same for all.
    """
    wanted = [m for m in OF_SETS if m.name in MEASURED]
    found = measure_set(sample, wanted)
    values = {name: float(r.value) for name, r in found.readings.items() if r.value is not None}
    moved = moves_of(sample, found, wanted, seeds=(seed, sample.seed))
    redrawn = {name: values[name] + of for name, of in moved.items()}
    for by, near in ((FROM_IMAGES, sample.train), (FROM_RECONSTRUCTIONS, reconstructions)):
        counted = 100.0 * authentic(near, sample.features)
        values[by] = float(counted.mean())
        redrawn[by] = values[by] + redrawn_means([counted], seed=seed, resamples=RESAMPLES)[:, 0]
    return Point(name, values, redrawn)


def authenticity_by(curve: Sequence[Point]) -> str:
    """Against what authenticity is measured: the training images, or their reconstructions where the curve spreads
    more by these. A decoder that blurs puts all that it makes far from every training image."""
    spread = {by: np.ptp([p.values[by] for p in curve]) for by in (FROM_IMAGES, FROM_RECONSTRUCTIONS)}
    return max(spread, key=lambda by: spread[by])


def gains(point: Point, curve: Sequence[Point], by: str) -> dict[str, Gain | None]:
    """Of each of `COMPARED`, at the point's authenticity; none where the curve does not reach it."""
    at, along = point.values[by], np.array([p.values[by] for p in curve])
    if not along.min() <= at <= along.max():
        return dict.fromkeys(COMPARED)
    again = np.stack([p.redrawn[by] for p in curve])
    found: dict[str, Gain | None] = {}
    for name in COMPARED:
        value = _at(at, along, np.array([p.values[name] for p in curve]))
        ys = np.stack([p.redrawn[name] for p in curve])
        others = [_at(a, x, y) for a, x, y in zip(point.redrawn[by], again.T, ys.T, strict=True)]
        gain = _gain(name, point.values[name], value)
        low, high = np.quantile(_gain(name, point.redrawn[name], np.array(others)), [0.025, 0.975]).tolist()
        found[name] = Gain(float(gain), low, high, value)
    return found


def _at(x: float, along: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    order = np.argsort(along, kind="stable")
    return float(np.interp(x, along[order], values[order]))


def _gain(
    name: str, of: NDArray[np.float64] | float, curve: NDArray[np.float64] | float
) -> NDArray[np.float64] | float:
    return 1 - of / curve if name == "frechet" else of - curve
