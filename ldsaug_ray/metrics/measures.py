"""Which measures there are, in the order of the tables, and all of them taken of a set at once.

One of the user's own is a `Measure` that `evaluate.measures` names by its dotted path.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ldsaug_ray.common.digest import code_digest
from ldsaug_ray.common.registry import import_all
from ldsaug_ray.config import Config
from ldsaug_ray.errors import ConfigError, InputError, failing
from ldsaug_ray.metrics.base import MEASURES as MEASURES  # of this room: it is whole once this module is imported
from ldsaug_ray.metrics.base import Measure, MeasureOfA, MeasureOfRun, Sample
from ldsaug_ray.metrics.bootstrap import redrawn_means
from ldsaug_ray.metrics.extractors import extractor_stamp
from ldsaug_ray.metrics.record import Described, Reading, SetReadings

import_all(__package__, [str(Path(__file__).parent)])
RESAMPLES = 1000
_BUILT_IN = sorted(map(MEASURES.get, MEASURES.names()), key=lambda measure: measure.place)
OF_SETS = tuple(m for m in _BUILT_IN if isinstance(m, Measure))
OF_RUNS = tuple(m for m in _BUILT_IN if isinstance(m, MeasureOfRun))
OF_A = tuple(m for m in _BUILT_IN if isinstance(m, MeasureOfA))


def measures_taken(own: Iterable[Described], sets: Collection[Container[str]]) -> tuple[Described, ...]:
    """Ours of sets, then one's own, that some set has by name, in the order of tables: a few are of one domain."""
    return tuple(m for m in (*OF_SETS, *own) if any(m.name in of for of in sets))


def own_measures(paths: Iterable[str]) -> tuple[Measure, ...]:
    """The measures that `evaluate.measures` names.

    Raises:
        ConfigError: a module or name is missing, it is no `Measure`, or its name is taken.
    """
    found: dict[str, Measure] = {}
    for path in paths:
        try:
            measure = MEASURES.get(path)
        except ConfigError as e:
            raise ConfigError(f"evaluate.measures: {e}") from e
        if ":" not in path:
            raise ConfigError(f"evaluate.measures: {path} is built in; name your own as package.module:Name")
        if not isinstance(measure, Measure):
            raise ConfigError(f"evaluate.measures: {path} is a {type(measure).__name__}; a Measure is needed")
        if measure.name in (*MEASURES.names(), *found):
            raise ConfigError(f"evaluate.measures: {path} is called {measure.name}, as another measure is; rename it")
        found[measure.name] = measure
    return tuple(found.values())


def evaluation_stamp(config: Config) -> str:
    """Identity of what measures, as far as it is known without loading it: the extractor's, and the user's own code.

    Raises:
        ConfigError: as `own_measures`, or the extractor is unknown.
        InputError: its file cannot be read.
    """
    own_measures(config.evaluate.measures)
    code = code_digest([*config.evaluate.measures, config.sample.prior])
    return f"{extractor_stamp(str(config.evaluate.extractor))}{code}"


def measure_set(sample: Sample, measures: Sequence[Measure] = OF_SETS) -> SetReadings:
    """A reading by each measure whose needs the sample meets; notes once each, in their order.

    Raises:
        InputError: no measure could do with these images, or one of the user's own failed.
    """
    readings = {m.name: _reading(m, sample) for m in measures if all(map(sample.has, m.needs))}
    notes = dict.fromkeys(note for reading in readings.values() for note in reading.notes)
    return SetReadings(len(sample.features), readings, tuple(notes))


def intervals_of(
    sample: Sample, found: SetReadings, measures: Sequence[Measure] = OF_SETS, *, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Limits at `level` of what `measure_set` gave, for as many images drawn anew: a bootstrap over the images of both
    sets, the same draws for all measures, from their terms. A measure's own are taken as they are; of one without
    terms, from its standard error; none where that is not known either. They tell of chance, not of the bias that few
    images bring.
    """
    moved = moves_of(sample, found, measures, seeds=(sample.seed, sample.seed + 1))
    tails = [(1 - level) / 2, (1 + level) / 2]
    limits = {}
    for name, reading in found.readings.items():
        if reading.interval:
            limits[name] = reading.interval
        elif reading.value is not None and (name in moved or reading.standard_error):
            error = reading.standard_error or 0.0
            low, high = (np.quantile(moved[name], tails) if name in moved else error * ndtri(tails)).tolist()
            limits[name] = (reading.value + low, reading.value + high)
    return limits


def moves_of(
    sample: Sample, found: SetReadings, measures: Sequence[Measure], *, seeds: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    """How far each value moves where as many images are drawn anew, float64[RESAMPLES] by name, of measures with terms.

    seeds: of the draws of the images that are measured, and of the reference: equal seeds draw the same.
    """
    terms = {m.name: m.terms(sample) for m in measures if m.terms and found.value(m.name) is not None}
    moved = dict.fromkeys(terms, np.zeros(RESAMPLES))
    for seed, side in zip(seeds, ("features", "reference"), strict=True):
        names = [name for name, of in terms.items() if side in of]
        if names:
            means = redrawn_means([terms[name][side] for name in names], seed=seed, resamples=RESAMPLES)
            moved |= {name: moved[name] + of for name, of in zip(names, means.T, strict=True)}
    return moved


def _reading(measure: Measure, sample: Sample) -> Reading:
    with failing(f"measure {measure.name}", own=measure not in OF_SETS):
        try:
            found = measure.take(sample)
        except InputError as e:
            if measure.required:
                raise
            return Reading(None, notes=(f"{measure.title}: {e}",))
    if not isinstance(found, Reading):
        raise InputError(f"measure {measure.name} gave {type(found).__name__}; a Reading is needed")
    if found.value is not None and not math.isfinite(found.value):
        return replace(found, value=None, notes=(*found.notes, f"{measure.title}: the value is {found.value}"))
    return found
