"""Measures of A's images, as the baseline decodes them: near real images, and far from the training images' own.

A search by them needs no training. AuthPct is taken against reconstructions of the training images: a decoder that
blurs puts all that it makes far from the images themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import MEASURES, Measure, MeasureOfA, Members, Sample, built_in
from ldsaug_ray.metrics.copies import authentic


def _taken(of: Callable[[Sample], float | None], a: Members) -> float | None:
    try:
        return None if a.images is None else of(a.images)
    except InputError:  # too few members
        return None


def _measure(
    name: str, title: str, better: Literal["less", "more"], place: int, of: Callable[[Sample], float | None]
) -> None:
    built_in(
        MeasureOfA(
            name=name,
            title=f"A: {title}",
            better=better,
            needs=("latents", "images"),
            place=place,
            prepare=lambda real: None,
            take=lambda known, a: _taken(of, a),
        )
    )


def _of_sets(name: str) -> Callable[[Sample], float | None]:
    def take(sample: Sample) -> float | None:
        measure = MEASURES.get(name)
        assert isinstance(measure, Measure)
        return measure.take(sample).value

    return take


_measure("a_frechet", "Fréchet distance", "less", 4, _of_sets("frechet"))
_measure("a_precision", "precision", "more", 5, _of_sets("precision"))
_measure("a_coverage", "coverage", "more", 6, _of_sets("coverage"))
_measure("a_authpct", "AuthPct", "more", 7, lambda sample: float(100 * authentic(sample.train, sample.features).mean()))
