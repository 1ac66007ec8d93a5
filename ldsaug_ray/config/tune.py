"""Section `tune`: a search over settings."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ldsaug_ray.config.base import Positive, Section, how


class Range(Section):
    """Values of a setting from low to high, both included."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="by ratios, not by differences")
    whole: bool = Field(False, description="whole numbers alone")
    values: Annotated[int, Field(ge=2)] | None = Field(None, description="this many, evenly spaced; none: any")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}: the range is empty")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("whole needs whole ends")
        return self


def _values_of(name: str, given: Any) -> Any:
    """A list or a range of a search's space, or ValueError in words that name the setting."""
    if isinstance(given, list | tuple):
        if not given:
            raise ValueError(f"{name}: the list is empty")
        try:
            json.dumps(given)
        except TypeError:
            raise ValueError(f"{name}: a value is neither text, number, true, false nor null (found {given})") from None
        return given
    if isinstance(given, Range):
        return given
    if not isinstance(given, dict):
        raise ValueError(f"{name} must be a list of values, or a range such as {{low: 0.1, high: 0.5}} (found {given})")
    fields = ", ".join(Range.model_fields)
    unknown = [field for field in given if field not in Range.model_fields]
    if unknown and len(unknown) == len(given):
        raise ValueError(
            f"{name} is no list and has none of {fields}; a setting's dotted name stands in one piece, as in "
            "tune.space={score.sigma.scale: [0.1, 0.2]}"
        )
    if unknown:
        raise ValueError(f"{name} has an unknown {unknown[0]}; possible: {fields}")
    try:
        return Range.model_validate(given)
    except ValidationError as e:
        error = e.errors()[0]
        field = "".join(f"{part}: " for part in error["loc"])
        raise ValueError(f"{name}: {field}{error['msg'].removeprefix('Value error, ')}") from None


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020): of the trials that reach a rung, the better ones go on."""

    grace_steps: Positive | None = Field(
        None, description="fine-tuning steps before the first evaluation; none: no trial is stopped"
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        3, description="one of so many goes on at each rung; rungs lie this factor apart"
    )


class Tune(Section):
    """A search over settings, by `ldsaug tune`. Other commands take no notice of it."""

    space: dict[str, Range | Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        {},
        description="dotted name of a setting -> list of values, or {low, high, log, whole, values}; images, model "
        "and latents are those of the settings as they stand",
    )
    objectives: tuple[dict[str, Annotated[float, Field(gt=0)]], ...] = Field(
        ({"frechet": 1.0},),
        min_length=1,
        max_length=2,
        description="what is made small: {measure: weight}, summed; of measures where more is better the negative "
        "counts. Two: their Pareto front. Those that begin with a_ look at A alone and need no training; a_frechet, "
        "a_precision, a_coverage and a_authpct at frontier.n of its images, decoded by the baseline. One of "
        "evaluate.measures by its dotted path",
    )
    search: Literal["tpe", "random", "grid"] = Field("tpe", description="tpe: Optuna's; grid: every combination once")
    trials: Positive = Field(24, description="with tpe and random: trials in all")
    bandwidths: Annotated[int, Field(ge=2)] = Field(
        8, description="values of a range of score.sigma that has no `values`"
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of the search; a trial's own seed is the run's. With tpe and several trials at once, points also "
        "depend on which of them ends first",
    )
    asha: Asha = Asha()
    hours: float | None = Field(None, gt=0, description="no trial starts so long after the command; none: no limit")
    concurrent: Positive | Literal["auto"] = Field(
        "auto", description="trials at once; auto: as many as fine-tunings fit in the cluster, one GPU each"
    )
    max_failures: int = how(1, ge=0, description="a trial that crashes is tried again this often")
    register_as: str | None = Field(
        None,
        description="name in MLflow's model registry under which the best trial's VAE is registered; none: it is not",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {str(name).strip(): _values_of(str(name).strip(), values) for name, values in given.items()}

    @model_validator(mode="after")
    def _objectives_and_rungs(self) -> Tune:
        if not all(self.objectives):
            raise ValueError("objectives: each names a measure at least, such as {frechet: 1}")
        if self.asha.grace_steps is not None and len(self.objectives) > 1:
            raise ValueError("asha.grace_steps: asha ranks trials by one objective; give one, or leave it out")
        return self
