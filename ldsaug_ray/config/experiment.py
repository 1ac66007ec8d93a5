"""Section `experiment`: arms from one baseline."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from ldsaug_ray.config.base import Positive, Section

_OF_ALL_ARMS = ("run_dir", "seed", "data", "evaluate", "experiment", "engine", "ray", "tracking")


class Arm(Section):
    """One arm of an experiment."""

    settings: dict[str, Any] = Field({}, description="what it changes: dotted name of a setting -> value")
    control: str | None = Field(None, description="arm it is compared with; none: experiment.control")
    about: str = Field("", description="what it is, for the tables")


class Experiment(Section):
    """Arms that start from one baseline, by `ldsaug experiment`. Other commands take no notice of it."""

    arms: dict[str, Arm] = Field(
        {},
        description="name -> {settings: {dotted name: value}, control: arm, about: text}; besides them there is "
        "baseline, the model before any fine-tuning",
    )
    control: str = Field("baseline", description="arm that the others are compared with, seed by seed")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0, 1, 2), min_length=1, description="of the whole run each: split, weights, candidates, batches"
    )
    train: tuple[Positive, ...] = Field((), description="training-set sizes; []: data.train alone")
    tables: dict[str, tuple[str, ...]] = Field({}, description="further tables: title -> arms, such as the paper's")

    @model_validator(mode="after")
    def _known_names(self) -> Experiment:
        if "baseline" in self.arms:
            raise ValueError("arms: baseline is there already, the model before any fine-tuning; choose another name")
        known = ["baseline", *self.arms]
        named = [("control", self.control)]
        named += [(f"arms.{name}.control", arm.control) for name, arm in self.arms.items() if arm.control is not None]
        named += [(f"tables.{title}", name) for title, names in self.tables.items() for name in names]
        for where, name in named:
            if name not in known:
                raise ValueError(f"{where}: there is no arm {name}; there are {', '.join(known)}")
        for name, arm in self.arms.items():
            if arm.control == name:
                raise ValueError(f"arms.{name}.control: an arm cannot be its own control")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+_.-]{0,60}", name):
                raise ValueError(f"arms: {name!r} is no name for a folder; use letters, digits and + _ . -")
            fixed = [n for n in arm.settings if n.strip().split(".")[0] in _OF_ALL_ARMS]
            if fixed:
                raise ValueError(
                    f"arms.{name}.settings: {', '.join(fixed)} cannot differ between arms: they would not be measured "
                    "alike"
                )
        if len({name.casefold() for name in self.arms}) < len(self.arms):
            raise ValueError("arms: two names that differ in case alone would share a folder on some file systems")
        for name, values in (("seeds", self.seeds), ("train", self.train)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: each value once")
        return self

    def control_of(self, arm: str) -> str | None:
        """What an arm is compared with: the control itself with baseline, and baseline with none."""
        if arm == "baseline":
            return None
        return self.arms[arm].control or ("baseline" if arm == self.control else self.control)
