"""What a search makes small: measures of a run's `metrics.json`, or of A alone, as one number or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ldsaug_ray.config import Evaluate
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import MEASURES, OF_RUNS, AnyMeasure, Evaluated, Measure, MeasureOfA

Objectives = Sequence[Mapping[str, float]]  # each: a measure, or the dotted path of one's own -> weight


def sought_in(objectives: Objectives) -> list[AnyMeasure]:
    """What the objectives are made of, each once, in their order. Raises ConfigError for an unknown measure."""
    return list({path: MEASURES.get(path) for objective in objectives for path in objective}.values())


def measures_in(objectives: Objectives) -> list[str]:
    """Their names."""
    return [measure.name for measure in sought_in(objectives)]


def needs_training(objectives: Objectives) -> bool:
    """Whether a trial must fine-tune and evaluate."""
    return any(not isinstance(measure, MeasureOfA) for measure in sought_in(objectives))


def needs_images(objectives: Objectives) -> bool:
    """Whether images of A must be decoded."""
    return any("images" in measure.needs for measure in sought_in(objectives))


def check_objectives(objectives: Objectives, evaluate: Evaluate) -> None:
    """Raises ConfigError for a measure that there is not, that has no better direction, or that is not taken."""
    for path in dict.fromkeys(path for objective in objectives for path in objective):
        try:
            measure = MEASURES.get(path)
        except ConfigError as e:
            raise ConfigError(f"tune.objectives: {e}") from None
        if measure.better is None:
            possible = ", ".join(name for name in MEASURES.names() if MEASURES.get(name).better is not None)
            raise ConfigError(f"tune.objectives: {path} has no direction that is better; possible: {possible}")
        if ":" in path and isinstance(measure, Measure) and path not in evaluate.measures:
            raise ConfigError(f"tune.objectives: {path} is not measured; name it in evaluate.measures too")
        if "downstream" in measure.needs and evaluate.downstream.label is None:
            raise ConfigError(f"tune.objectives: {path} needs evaluate.downstream.label, such as digit")
        if "attributes" in measure.needs and not evaluate.attributes:
            raise ConfigError(f"tune.objectives: {path} needs evaluate.attributes, such as [Male]")


def objective_values(objectives: Objectives, measures: Mapping[str, float | None]) -> list[float]:
    """Each objective's weighted sum; less is better.

    Raises:
        InputError: a measure has no value for these images.
    """
    values = []
    for objective in objectives:
        total = 0.0
        for path, weight in objective.items():
            measure = MEASURES.get(path)
            value = measures.get(measure.name)
            if value is None:
                where = "" if isinstance(measure, MeasureOfA) else "; evaluate/metrics.json of the trial tells why"
                raise InputError(f"{measure.name} has no value for these images{where}")
            total += weight * measure.sign * value
        values.append(total)
    return values


def measures_of_run(found: Evaluated, name: str = "finetuned") -> dict[str, float | None]:
    """Measures of the images of a set, and those that follow from them."""
    taken = {measure: reading.value for measure, reading in found.sets[name].readings.items()}
    return taken | {measure.name: measure.take(found, name) for measure in OF_RUNS}
