"""Are generated images copies of training images? Distances to the nearest, against those of held-out real images.

No single number detects memorisation: look at the nearest pairs too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import Measure, Sample, built_in
from ldsaug_ray.metrics.features import Features, checked_features, same_dimension
from ldsaug_ray.metrics.nearest import nearest_neighbours
from ldsaug_ray.metrics.record import Evaluated, Reading

Array = NDArray[np.float64]
Index = NDArray[np.int64]

CELLS = 10
IMAGES_A_CELL = 50  # in the mean: fewer images get fewer cells than usual
FEWEST_IN_CELL = 20  # held-out and generated images: below, the normal limit of Mann and Whitney's U is poor


@dataclass(frozen=True, eq=False)
class Nearest:
    """Nearest training image of each image of a set: its row int64[M] and the distance float64[M]."""

    rows: Index
    distances: Array

    def closest(self, count: int) -> Index:
        """Rows of the `count` images that lie nearest to a training image, nearest first: a gallery."""
        return np.argsort(self.distances, kind="stable")[:count]


@dataclass(frozen=True)
class CopyingTest:
    """C_T: far below 0 where generated images lie nearer to training images than held-out ones do; about N(0, 1/cells)
    where they lie as far, above 0 where they lie farther.

    by_cell: float64[cells], Z_U of each cell, NaN where the cell has too few images to count; weights: float64[cells],
    share of the held-out images among the cells that count; generated_terms, held_out_terms: float64[M], float64[H],
    what of the value is a mean over these images, to first order, the cells and their weights held fixed.
    """

    value: float
    by_cell: Array
    weights: Array
    generated_terms: Array
    held_out_terms: Array
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copies:
    """Nearest training images of generated and of held-out images, and what they say.

    authenticity: AuthPct of the generated images; authenticity_held_out: the same of held-out real images, what no
    copying looks like; nearer: probability that a generated image lies nearer to its training image than a held-out
    one does, 0.5 where they lie as far; authentic: bool[M], the generated images that AuthPct counts.
    """

    generated: Nearest
    held_out: Nearest
    authenticity: float
    authenticity_held_out: float
    nearer: float
    c_t: CopyingTest
    authentic: NDArray[np.bool_]


def measure_copies(
    train: ArrayLike, generated: ArrayLike, held_out: ArrayLike, *, cells: int = CELLS, seed: int = 0
) -> Copies:
    """All of this module on features train float[N, C], generated float[M, C], held_out float[H, C].

    Raises:
        InputError: invalid features, dimensions that differ, or too few images (2 to train on, 20 of the others).
    """
    t, g, h = _three(train, generated, held_out)
    near, real = nearest_training(t, g), nearest_training(t, h)
    own = _own(t)
    return Copies(
        generated=near,
        held_out=real,
        authenticity=authenticity(near, own),
        authenticity_held_out=authenticity(real, own),
        nearer=float(1 - _above(near.distances, real.distances) / (len(g) * len(h))),
        c_t=copying_test(t, g, h, cells=cells, seed=seed),
        authentic=_authentic(near, own),
    )


def nearest_training(train: ArrayLike, images: ArrayLike) -> Nearest:
    """Nearest training image, by Euclidean distance of features float[N, C] and float[M, C].

    Raises:
        InputError: invalid features, or dimensions that differ.
    """
    t, x = checked_features(train, "train features"), checked_features(images, "image features")
    t, x = same_dimension(t, x, ("train features", "image features"))
    ids, squares = nearest_neighbours(t, x, 1)
    return Nearest(ids[:, 0], squares[:, 0] ** 0.5)


def authenticity(images: Nearest, train_own: Array) -> float:
    """AuthPct, per cent (Alaa et al. 2022, section 3.2): images farther from their nearest training image than that one
    is from its own nearest training image, train_own float64[N]. About 50 for new images of the same distribution.
    """
    return float(100 * _authentic(images, train_own).mean())


def authentic(train: ArrayLike, images: ArrayLike) -> NDArray[np.bool_]:
    """The images float[M, C] that AuthPct counts, bool[M], against train float[N, C]. Raises as `nearest_training`."""
    t = checked_features(train, "train features", 2, "a comparison with training images")
    return _authentic(nearest_training(t, images), _own(t))


def _own(train: Features) -> Array:
    """Distance of each training image to the nearest other, float64[N]."""
    own: Array = nearest_neighbours(train, train, 1, np.arange(len(train)))[1][:, 0] ** 0.5
    return own


def _authentic(images: Nearest, train_own: Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = train_own[images.rows] < images.distances
    return found


def copying_test(
    train: ArrayLike, generated: ArrayLike, held_out: ArrayLike, *, cells: int = CELLS, seed: int = 0
) -> CopyingTest:
    """C_T of Meehan, Chaudhuri & Dasgupta (2020), section 4: cells are k-means clusters of the training features; in
    each, the z-score of Mann and Whitney's U between the distances of generated and of held-out images to the nearest
    training image of the cell; averaged by the held-out images' shares. Ties count half and shrink the variance.

    Cells with fewer than 20 held-out or generated images do not count; the notes say how many.

    Raises:
        InputError: as `measure_copies`, or no cell counts.
        ValueError: fewer than one cell.
    """
    from sklearn.cluster import KMeans

    if cells < 1:
        raise ValueError(f"cells must be at least 1, got {cells}")
    t, g, h = _three(train, generated, held_out)
    with warnings.catch_warnings():  # cells that stay empty do not count, and the notes say so
        warnings.filterwarnings("ignore", "Number of distinct clusters")
        clusters = KMeans(min(cells, len(t)), n_init=4, random_state=seed).fit(t)
    of_t, of_g, of_h = clusters.labels_, clusters.predict(g), clusters.predict(h)
    scores, sizes = np.full(cells, np.nan), np.zeros(cells)
    terms = np.zeros(len(g)), np.zeros(len(h))
    for cell in range(cells):
        inside, in_g, in_h = t[of_t == cell], of_g == cell, of_h == cell
        m, sizes[cell] = int(in_g.sum()), in_h.sum()
        if len(inside) and min(m, sizes[cell]) >= FEWEST_IN_CELL:
            new, real = (nearest_neighbours(inside, x, 1)[1][:, 0] for x in (g[in_g], h[in_h]))
            scores[cell], unit = _z_score(new, real)
            above, below = _placements(new, real), _placements(real, new)
            terms[0][in_g] = len(g) / m * unit * (above - above.mean())
            terms[1][in_h] = len(h) / sizes[cell] * unit * (below.mean() - below)
    counts = np.isfinite(scores)
    if not counts.any():
        raise InputError(
            f"C_T: none of {cells} cells holds {FEWEST_IN_CELL} generated and {FEWEST_IN_CELL} held-out images; "
            "take more images or fewer cells"
        )
    weights = np.where(counts, sizes, 0) / sizes[counts].sum()
    notes: tuple[str, ...] = ()
    if not counts.all():
        notes = (
            f"C_T: {int((~counts).sum())} of {cells} cells have fewer than {FEWEST_IN_CELL} generated or held-out "
            f"images and do not count; they hold {1 - sizes[counts].sum() / len(h):.0%} of the held-out images.",
        )
    value = float(scores[counts] @ weights[counts])
    return CopyingTest(value, scores, weights, terms[0] * weights[of_g], terms[1] * weights[of_h], notes)


def _three(train: ArrayLike, generated: ArrayLike, held_out: ArrayLike) -> tuple[Features, Features, Features]:
    t = checked_features(train, "train features", 2, "a comparison with training images")
    few = "a comparison of distances"
    g = checked_features(generated, "generated features", FEWEST_IN_CELL, few)
    h = checked_features(held_out, "held-out features", FEWEST_IN_CELL, few)
    t, g = same_dimension(t, g, ("train features", "generated features"))
    t, h = same_dimension(t, h, ("train features", "held-out features"))
    return t, g.astype(t.dtype, copy=False), h


def _above(a: Array, b: Array) -> float:
    """Mann and Whitney's U: pairs with a above b, ties half."""
    from scipy.stats import rankdata  # takes a second, and every worker process imports this module

    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float(ranks.sum() - len(a) * (len(a) + 1) / 2)


def _placements(a: Array, b: Array) -> Array:
    """Share of b below each of a, ties half (DeLong et al. 1988)."""
    from scipy.stats import rankdata

    found: Array = (rankdata(np.concatenate([a, b]))[: len(a)] - rankdata(a)) / len(b)
    return found


def _z_score(generated: Array, held_out: Array) -> tuple[float, float]:
    """U of generated over held-out distances, in standard deviations from its mean under equality, and what U over the
    number of pairs counts in it; 0 if all tie.
    """
    m, n = len(generated), len(held_out)
    _, ties = np.unique(np.concatenate([generated, held_out]), return_counts=True)
    total = m + n
    variance = m * n / 12 * (total + 1 - float((ties.astype(np.float64) ** 3 - ties).sum()) / (total * (total - 1)))
    if variance <= 0:
        return 0.0, 0.0
    return float((_above(generated, held_out) - m * n / 2) / variance**0.5), m * n / variance**0.5


def copies_of(sample: Sample) -> tuple[Copies | None, str]:
    """`measure_copies` of a sample that has a reference and training images, or None and why: for all that need it."""
    try:
        copies = measure_copies(sample.train, sample.features, sample.reference, cells=_cells(sample), seed=sample.seed)
    except InputError as e:
        return None, f"copies: {e}"
    return copies, ""


def _cells(sample: Sample) -> int:
    return min(CELLS, max(1, min(len(sample.features), len(sample.reference)) // IMAGES_A_CELL))


def _measured(sample: Sample, read: Callable[[Copies], Reading]) -> Reading:
    copies, why = sample.once(copies_of)
    return Reading(None, notes=(why,)) if copies is None else read(copies)


def _authenticity(sample: Sample) -> Reading:
    return _measured(sample, lambda c: Reading(c.authenticity, more={"held_out": c.authenticity_held_out}))


def _nearer(sample: Sample) -> Reading:
    return _measured(sample, lambda c: Reading(c.nearer))


def _c_t(sample: Sample) -> Reading:
    return _measured(sample, lambda c: Reading(c.c_t.value, more={"cells": _cells(sample)}, notes=c.c_t.notes))


def held_out_authenticity(found: Evaluated) -> float | None:
    """AuthPct of held-out real images: what no new image can be expected to exceed by much; None if unknown."""
    readings = [of.readings[AUTHENTICITY.name] for of in found.sets.values() if AUTHENTICITY.name in of.readings]
    return next((r.more["held_out"] for r in readings if "held_out" in r.more), None)


def _measure(
    name: str,
    title: str,
    place: int,
    take: Callable[[Sample], Reading],
    of: Callable[[Copies], Mapping[str, Array]],
    **how: Any,
) -> Measure:
    """of: the terms of its value; the training images are held fixed."""

    def terms(sample: Sample) -> Mapping[str, Array]:
        copies, _ = sample.once(copies_of)
        return of(copies) if copies else {}

    needs = ("reference", "train")
    return built_in(Measure(name=name, title=title, needs=needs, place=place, take=take, terms=terms, **how))


def _authenticity_terms(copies: Copies) -> Mapping[str, Array]:
    return {"features": np.where(copies.authentic, 100.0, 0.0)}


def _nearer_terms(copies: Copies) -> Mapping[str, Array]:
    new, real = copies.generated.distances, copies.held_out.distances
    return {"features": -_placements(new, real), "reference": _placements(real, new)}


def _c_t_terms(copies: Copies) -> Mapping[str, Array]:
    return {"features": copies.c_t.generated_terms, "reference": copies.c_t.held_out_terms}


# as many copies as real images have, and not fewer, are best: a search may weigh them, tables show no arrow
AUTHENTICITY = _measure(
    "authenticity", "AuthPct", 8, _authenticity, _authenticity_terms, better="more", agreed=False, shown="mean"
)
_measure("nearer", "nearer than held-out", 9, _nearer, _nearer_terms, better="less", agreed=False, shown="mean")
_measure("c_t", "C_T", 10, _c_t, _c_t_terms, better=None, shown="csv")
