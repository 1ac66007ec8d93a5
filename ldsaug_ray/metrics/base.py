"""What a measure is: a record that owns its name, title, which way is better, what it needs, and how to take it.

There are three kinds. A `Measure` looks at the features of a set of images and is kept in `metrics.json`. A
`MeasureOfA` looks at A's latents alone, so that a search by it needs no training. A `MeasureOfRun` follows from what
`metrics.json` says already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import Interpolation
from ldsaug_ray.lds import Noise, interpolate
from ldsaug_ray.metrics.features import Features
from ldsaug_ray.metrics.record import Described, Evaluated, Reading

T = TypeVar("T")
M = TypeVar("M", bound="AnyMeasure")
Latents = NDArray[np.float32]
Rows = NDArray[np.int64]


def _none() -> Features:
    return np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Sample:
    """A set of images to be measured.

    features: float32[M, C]; reference: float32[N, C], of held-out real images; train: float32[T, C], of the training
    images; both empty where there are none; quality: name -> float64[M], numbers of each image, such as `sharpness`; k:
    neighbours; seed: of random subsets; items: a domain's name -> {features, reference, train: the items themselves},
    for measures of that domain alone.
    """

    features: Features
    reference: Features = field(default_factory=_none)
    train: Features = field(default_factory=_none)
    quality: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    k: int = 5
    seed: int = 0
    items: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def has(self, need: str) -> bool:
        """Whether it has what a measure needs: `reference`, `train`, or a name in `quality` or `items`."""
        return (
            need in self.quality
            or need in self.items
            or (need in ("reference", "train") and len(getattr(self, need)) > 0)
        )

    def once(self, compute: Callable[[Sample], T]) -> T:
        """What `compute` gives of this sample, computed once: for measures that share a computation."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        found: T = self._known[compute]
        return found


@dataclass(frozen=True, kw_only=True)
class AnyMeasure(Described):
    """A measure that is taken here. needs: what a sample must have; `attributes`: labels, by evaluate.attributes;
    `images`: of A, decoded.
    place: of ours, in the tables, the lowest first.
    """

    needs: tuple[str, ...] = ()
    place: int = 1000

    @property
    def sign(self) -> int:
        """Of its value in what a search makes small."""
        return -1 if self.better == "more" else 1


@dataclass(frozen=True, kw_only=True)
class Measure(AnyMeasure):
    """Of a set of images. It is not taken of sets that lack what it `needs`: the test images have no `reference`.

    take: the reading of a sample; an InputError means that these images do not allow it, and a note says why. required:
    then no measure could do with them, and it is an error. terms: for each set whose images count as a random draw
    (`features`, `reference`), float64[n]: what of the value, to first order, is their mean, so that another draw
    changes the value as it changes that mean (Efron 1982, the infinitesimal jackknife). None: that is not known.
    """

    take: Callable[[Sample], Reading]
    required: bool = False
    terms: Callable[[Sample], Mapping[str, NDArray[np.float64]]] | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureOfRun(AnyMeasure):
    """Of a set of images, from what `metrics.json` has of it: take(evaluated, name of the set)."""

    take: Callable[[Evaluated, str], float | None]


@dataclass(frozen=True, eq=False)
class Real:
    """What every A is measured against.

    train: float32[N, d], training latents, which parents are rows of; held_out: float32[H, d], of test images; labels:
    int[N, C] of the training images, a column an attribute: 1, -1, or 0 where not known, of one with many values the
    label + 1; real_labels: int[T, C] of
    the test images; seed: of a random search for a bandwidth.
    """

    train: Latents
    held_out: Latents
    labels: NDArray[np.integer]
    real_labels: NDArray[np.integer]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Members:
    """Members of A, or a random sample of them: (1 - alpha) train[i] + alpha train[j], or its like by slerp.

    train: float32[N, d]; i, j: int64[M]; alpha: float64[M]; total: members that A has; noise: what is added to each,
    by its candidate id, int64[M]; images: of the first of them, with reconstructions of the training images as `train`,
    where a measure needs `images`.
    """

    train: Latents
    i: Rows
    j: Rows
    alpha: NDArray[np.float64]
    interpolation: Interpolation
    total: int
    noise: Noise | None = None
    id: Rows | None = None
    images: Sample | None = None

    @cached_property
    def z(self) -> Latents:
        """float32[M, d]."""
        return interpolate(self.train, self.i, self.j, self.alpha, self.interpolation, self.noise, self.id)

    def some(self, which: Rows | slice) -> Members:
        """Those of these rows."""
        chosen = {name: getattr(self, name)[which] for name in ("i", "j", "alpha")}
        return replace(self, **chosen, id=None if self.id is None else self.id[which])


@dataclass(frozen=True, kw_only=True)
class MeasureOfA(AnyMeasure):
    """Of A, without decoding or training.

    prepare: what it needs of the real latents, made once for all A's; an InputError says why no A has a value. take:
    the value from what was prepared and the members, None where they have none.
    """

    prepare: Callable[[Real], Any]
    take: Callable[[Any, Members], float | None]


MEASURES: Registry[AnyMeasure] = Registry("measure", AnyMeasure)


def built_in(measure: M) -> M:
    """Register a measure of ours under its name, and give it back."""
    MEASURES.add(measure.name, measure)
    return measure
