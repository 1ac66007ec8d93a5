"""What a search makes small: measures of a run's `metrics.json`, or of A alone (`proxies.py`), as one number or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldsaug_ray.config import Measure
from ldsaug_ray.errors import InputError

Objectives = Sequence[Mapping[Measure, float]]  # each: measure -> weight

MORE_IS_BETTER = {"precision", "recall", "density", "coverage", "sharpness", "a_likelihood"}
OF_A = ("a_likelihood", "a_attribute_gap", "a_nearer")


def measures_in(objectives: Objectives) -> list[Measure]:
    """What the objectives are made of, each once, in their order."""
    return list(dict.fromkeys(measure for objective in objectives for measure in objective))


def needs_training(objectives: Objectives) -> bool:
    """Whether a trial must fine-tune and evaluate."""
    return any(measure not in OF_A for measure in measures_in(objectives))


def objective_values(objectives: Objectives, measures: Mapping[str, float | None]) -> list[float]:
    """Each objective's weighted sum; less is better.

    Raises:
        InputError: a measure has no value for these images.
    """
    values = []
    for objective in objectives:
        total = 0.0
        for measure, weight in objective.items():
            value = measures.get(measure)
            if value is None:
                where = "" if measure in OF_A else "; evaluate/metrics.json of the trial tells why"
                raise InputError(f"{measure} has no value for these images{where}")
            total += weight * (-value if measure in MORE_IS_BETTER else value)
        values.append(total)
    return values


def measures_of_run(told: Mapping[str, Any], name: str = "finetuned") -> dict[str, float | None]:
    """Measures of the images of a set, from `metrics.json`; attribute_gap is the mean over the attributes."""
    numbers = told["sets"][name]
    measures = {name: found.get("value") for name, found in numbers.items() if isinstance(found, Mapping)}
    gaps = []
    for found in told["attributes"].values():
        here, real = (found["shares"][of]["value"] for of in (name, "test"))
        gaps.append(None if here is None or real is None else abs(here - real))
    known = [gap for gap in gaps if gap is not None]
    measures["attribute_gap"] = float(np.mean(known)) if known and len(known) == len(gaps) else None
    return measures
