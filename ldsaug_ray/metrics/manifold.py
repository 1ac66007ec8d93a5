"""Precision, recall (Kynkäänniemi et al. 2019) and density, coverage (Naeem et al. 2020) of fakes against reals.

All ask which points lie in which balls, where a point's ball reaches to its k-th nearest neighbour of its own set:

    precision   share of fakes in some real's ball           density    mean over fakes of (real balls that hold it) / k
    recall      share of reals in some fake's ball           coverage   share of reals whose ball holds some fake

Memory is bounded by tiles. Float32 decides the pairs it can; the others are decided by differences in float64, so the
counts are those of exact arithmetic, and a point on a sphere is outside, as in the `prdc` package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.lds._compiled import in_threads
from ldsaug_ray.lds._frame import EPSILON, Frame
from ldsaug_ray.metrics import _compiled
from ldsaug_ray.metrics.base import Measure, Sample, built_in
from ldsaug_ray.metrics.features import Features, all_equal, checked_features, same_dimension
from ldsaug_ray.metrics.nearest import nearest_neighbours
from ldsaug_ray.metrics.record import Reading

Array = NDArray[np.float64]

FEW = 1000  # images below which the measures move visibly with n (Naeem et al. 2020, section 4)
TILE_FAKES, TILE_REALS = 1024, 8192


@dataclass(frozen=True, eq=False)
class Prdc:
    """The four measures.

    errors: standard errors by name; of precision and density over the fakes, the reals held fixed, of recall and
    coverage over the reals, the fakes held fixed. real_balls: int64[M], how many reals' balls hold each fake; covered,
    recalled: bool[N], of each real. notes: sentences for the reader of the numbers.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    errors: dict[str, float]
    k: int
    n_real: int
    n_fake: int
    real_balls: NDArray[np.int64]
    covered: NDArray[np.bool_]
    recalled: NDArray[np.bool_]
    notes: tuple[str, ...]


def prdc(real_features: ArrayLike, fake_features: ArrayLike, k: int = 5) -> Prdc:
    """Precision, recall, density, coverage of fakes float[M, C] against reals float[N, C] with k neighbours.

    Raises:
        InputError: invalid features, dimensions that differ, k below 1, a set of k images or fewer, or reals that are
            all the same, so that every ball is empty.
    """
    real, fake = _checked(real_features, fake_features, k)
    balls_real, balls_fake = _radii(real, k), _radii(fake, k)
    counts, covered, recalled = _count(real, fake, balls_real, balls_fake)
    inside = counts > 0
    errors = {
        "precision": _error(inside),
        "recall": _error(recalled),
        "density": _error(counts / k),
        "coverage": _error(covered),
    }
    return Prdc(
        precision=float(inside.mean()),
        recall=float(recalled.mean()),
        density=float(counts.mean() / k),
        coverage=float(covered.mean()),
        errors=errors,
        k=k,
        n_real=len(real),
        n_fake=len(fake),
        real_balls=counts,
        covered=covered,
        recalled=recalled,
        notes=_notes(real, fake, balls_real, balls_fake, k),
    )


def _checked(real: ArrayLike, fake: ArrayLike, k: int) -> tuple[Features, Features]:
    if k < 1:
        raise InputError(f"k must be at least 1; found {k}")
    why = f"k = {k} neighbours"
    a = checked_features(real, "real_features", k + 1, why)
    b = checked_features(fake, "fake_features", k + 1, why)
    a, b = same_dimension(a, b, ("real_features", "fake_features"))
    if all_equal(a):
        raise InputError(
            f"real_features: all {len(a)} images have the same features, so every ball is empty; check the extractor"
        )
    return a, b


def _radii(features: Features, k: int) -> Array:
    """Squared distance of each row to its k-th nearest other row, float64[N]."""
    return nearest_neighbours(features, features, k, np.arange(len(features)))[1][:, -1]


def _count(
    real: Features, fake: Features, balls_real: Array, balls_fake: Array
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """How many real balls hold each fake; whether a fake covers each real; whether each real is in a fake's ball."""
    frame = Frame.over(real)
    counts = np.zeros(len(fake), np.int64)
    covered, recalled = np.zeros(len(real), np.bool_), np.zeros(len(real), np.bool_)
    # rounding of the vectors and a product of C terms in any order, and as much again for what float64 rounds
    relative = 2 * (real.shape[1] + 8) * EPSILON
    for start in range(0, len(real), TILE_REALS):
        part = slice(start, min(start + TILE_REALS, len(real)))
        reals = frame.rows(real[part], np.float32)
        for top in range(0, len(fake), TILE_FAKES):
            rows = slice(top, min(top + TILE_FAKES, len(fake)))
            fakes = frame.rows(fake[rows], np.float32)
            cross = torch.mm(fakes.tensor(), reals.tensor().T)
            in_threads(
                _compiled.count_in_balls,
                len(cross),
                cross.numpy(),
                real,
                fake,
                start,
                top,
                reals.norms,
                fakes.norms,
                np.sqrt(reals.norms),
                np.sqrt(fakes.norms),
                relative,
                frame.scale**2,
                balls_real[part],
                balls_fake[rows],
                counts[rows],
                covered[part],
                recalled[part],
            )
    return counts, covered, recalled


def _error(values: NDArray[np.generic]) -> float:
    x = values.astype(np.float64)
    return float(x.std(ddof=1) / len(x) ** 0.5)


def _notes(real: Features, fake: Features, balls_real: Array, balls_fake: Array, k: int) -> tuple[str, ...]:
    notes = []
    if min(len(real), len(fake)) < FEW:
        notes.append(
            f"Density and coverage of {len(fake):,} images against {len(real):,}: below {FEW:,} they move with n; "
            "compare only values of equal n."
        )
    if all_equal(fake):
        notes.append(
            f"All {len(fake):,} fake images have the same features: the generator, or the extractor, collapsed."
        )
    for name, balls in (("real", balls_real), ("fake", balls_fake)):
        empty = int((balls == 0).sum())
        if empty and not (name == "fake" and all_equal(fake)):
            notes.append(f"{empty:,} {name} images have more than {k} copies, and their balls are empty.")
    return tuple(notes)


def _all(sample: Sample) -> Prdc:
    return prdc(sample.reference, sample.features, sample.k)


def _measure(name: str, place: int, shown: Literal["compared", "csv"], of: Callable[[Prdc], Mapping[str, Any]]) -> None:
    """of: what the measure is the mean of, and over which set's images; the balls are held fixed."""

    def taken(sample: Sample) -> Reading:
        found = sample.once(_all)
        return Reading(getattr(found, name), found.errors[name], notes=found.notes)

    def terms(sample: Sample) -> Mapping[str, Array]:
        return {name: values.astype(np.float64) for name, values in of(sample.once(_all)).items()}

    built_in(
        Measure(
            name=name,
            title=name,
            better="more",
            shown=shown,
            needs=("reference",),
            place=place,
            take=taken,
            required=True,
            terms=terms,
        )
    )


_measure("precision", 3, "csv", lambda found: {"features": found.real_balls > 0})
_measure("recall", 4, "csv", lambda found: {"reference": found.recalled})
_measure("density", 5, "compared", lambda found: {"features": found.real_balls / found.k})
_measure("coverage", 6, "compared", lambda found: {"reference": found.covered})
