"""Which measures there are, in the order of the tables, and all of them taken of a set at once.

One of the user's own is a `Measure` that `evaluate.measures` names by its dotted path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from ldsaug_ray.common.digest import code_digest
from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import Config
from ldsaug_ray.errors import ConfigError, InputError, failing
from ldsaug_ray.metrics.a_attribute_gap import A_ATTRIBUTE_GAP
from ldsaug_ray.metrics.a_likelihood import A_LIKELIHOOD
from ldsaug_ray.metrics.a_nearer import A_NEARER
from ldsaug_ray.metrics.attribute_gap import ATTRIBUTE_GAP
from ldsaug_ray.metrics.base import AnyMeasure, Measure, MeasureOfA, MeasureOfRun, Sample
from ldsaug_ray.metrics.copies import AUTHENTICITY, C_T, NEARER
from ldsaug_ray.metrics.extractors import extractor_stamp
from ldsaug_ray.metrics.frechet import FRECHET
from ldsaug_ray.metrics.kernel_distance import KERNEL_DISTANCE
from ldsaug_ray.metrics.manifold import COVERAGE, DENSITY, PRECISION, RECALL
from ldsaug_ray.metrics.record import Reading, SetReadings
from ldsaug_ray.metrics.sharpness import SHARPNESS

OF_SETS: tuple[Measure, ...] = (
    FRECHET,
    KERNEL_DISTANCE,
    PRECISION,
    RECALL,
    DENSITY,
    COVERAGE,
    SHARPNESS,
    AUTHENTICITY,
    NEARER,
    C_T,
)
OF_RUNS: tuple[MeasureOfRun, ...] = (ATTRIBUTE_GAP,)
OF_A: tuple[MeasureOfA, ...] = (A_LIKELIHOOD, A_ATTRIBUTE_GAP, A_NEARER)
MEASURES: Registry[AnyMeasure] = Registry("measure", AnyMeasure)
for _measure in (*OF_SETS, *OF_RUNS, *OF_A):
    MEASURES.add(_measure.name, _measure)


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


def _reading(measure: Measure, sample: Sample) -> Reading:
    with nullcontext() if measure in OF_SETS else failing(f"measure {measure.name}"):
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
