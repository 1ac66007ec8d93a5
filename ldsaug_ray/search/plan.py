"""A search as its settings ask for it: what is tried, each trial's run, and what is wrong before anything starts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.config import Config
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import MEASURES, OF_A, MeasureOfA, evaluation_stamp
from ldsaug_ray.run.pipeline import STAGES, identity
from ldsaug_ray.search.objectives import check_objectives, measures_in, needs_images, needs_training, objective_values
from ldsaug_ray.search.space import Point, Source, Space, check_values, space_of
from ldsaug_ray.search.trials import Trial, as_overrides, front, key_of

# the model before fine-tuning is evaluated once; no objective needs A's features, or whether LDS detects damage
_EVALUATION: Mapping[str, Any] = {
    "evaluate.augmented": False,
    "evaluate.detection.corruptions": [],
    "evaluate.detection.others": None,
}
_OF_THE_SPACE = ("run_dir=", "tune.space=", "tune.search=", "tune.trials=", "tune.seed=")  # a single point has none


@dataclass(frozen=True)
class Search:
    """Settings, space, and whether trials fine-tune; `one_gpu`: each on a GPU of its own."""

    source: Source
    config: Config
    space: Space
    trains: bool
    one_gpu: bool = False

    @property
    def root(self) -> str:
        """The run directory of the search."""
        return self.config.run_dir.rstrip("/")

    def trial_config(self, point: Point) -> Config:
        """The settings of a trial's run.

        Raises:
            ConfigError: these values are not possible together.
        """
        config = self._run(point, f"trials/{key_of(point)}", "finetune")
        _refuse(self.trains, self.config.tune.asha.grace_steps is not None, config)
        return config

    def baseline_config(self) -> Config:
        """The settings of the run that evaluates the model before fine-tuning."""
        return self._run({}, "baseline", "train")

    def scoring_config(self, scoring: Point) -> Config:
        """The settings that scores are made with."""
        return self._run(scoring, f"scorings/{key_of(scoring)}", "finetune")

    def scoring(self, point: Point) -> Point:
        """What of a point changes the scores."""
        return {name: value for name, value in point.items() if name.split(".")[0] == "score"}

    def identity(self, point: Point, digests: Mapping[str, str]) -> str:
        """Of all that a trial's numbers depend on.

        Raises:
            ConfigError: these values are not possible together.
        """
        config, asha = self.trial_config(point), self.config.tune.asha
        rungs = asha.model_dump() if asha.grace_steps is not None else None
        measured = None
        if (self.trains or self.looks_at_images) and config.evaluate.extractor is not None:
            measured = STAGES["evaluate"].fingerprint(config, {}, self._extractor)
        return fingerprint([identity(config), digests, rungs, measured, self.measures_of_a])

    @cached_property
    def _extractor(self) -> str:
        """Looked at once: where the file goes away later, that is no matter of a trial's settings."""
        assert self.config.evaluate.extractor is not None
        return evaluation_stamp(self.config)

    @property
    def looks_at_images(self) -> bool:
        """Whether A is decoded for its measures."""
        return needs_images(self.config.tune.objectives)

    @property
    def measures_of_a(self) -> list[str]:
        """What trials measure of A: where they cost little besides, what the objectives ask for; else all."""
        asked = {path: MEASURES.get(path) for objective in self.config.tune.objectives for path in objective}
        own = [path for path, m in asked.items() if isinstance(m, MeasureOfA) and m not in OF_A]
        cheap = [m.name for m in OF_A if self.trains and "images" not in m.needs]
        return [m.name for m in OF_A if m.name in cheap or m.name in asked] + own

    def rungs(self, steps: int) -> list[int]:
        """Steps of fine-tuning, before the last of `steps`, at which a trial is evaluated."""
        first, factor = self.config.tune.asha.grace_steps, self.config.tune.asha.reduction_factor
        found: list[int] = []
        while first is not None and (step := first * factor ** len(found)) < steps:
            found.append(step)
        return found

    @property
    def titles(self) -> list[str]:
        """Of the objectives: `frechet`, `-coverage`, `frechet + 50 attribute_gap`."""
        return [
            " + ".join(
                f"{'' if weight == 1 else f'{weight:g} '}{'-' if measure.sign < 0 else ''}{measure.name}"
                for measure, weight in ((MEASURES.get(path), weight) for path, weight in objective.items())
            )
            for objective in self.config.tune.objectives
        ]

    def result_of(self, trial: Trial) -> str:
        """What a trial has come to so far."""
        try:
            values = objective_values(self.config.tune.objectives, trial.measures)
        except InputError as e:
            return str(e)
        return ", ".join(f"{title} = {value:.5g}" for title, value in zip(self.titles, values, strict=True))

    def why(self, trial: Trial) -> str:
        """Why a trial that is over has no result; nothing where it has one, or goes on."""
        without = trial.state == "finished" and trial.values(self.config.tune.objectives) is None
        return trial.why or (self.result_of(trial) if without else "")

    def best(self, trials: Sequence[Trial]) -> list[Trial]:
        """The best trial; of two objectives the front."""
        return front(trials, self.config.tune.objectives)

    def command(self, trial: Trial) -> str:
        """What makes a run with the trial's settings, elsewhere."""
        given = [word for word in self.source.overrides if not word.startswith(("tune.", "run_dir="))]
        if self.one_gpu and self.config.finetune.workers.count == "auto":
            given.append("finetune.workers.count=1")
        fixed = as_overrides({**trial.point, "run_dir": f"{self.root}-{trial.key}"})
        return shlex.join(["ldsaug", "run", self.source.path, *given, *fixed])

    def commands(self, trial: Trial) -> list[tuple[str, str]]:
        """What repeats a trial, elsewhere, and what that is in words: its run; where it had none, its measures."""
        if self.trains:
            return [("its run again, with a page of its own", self.command(trial))]
        space = json.dumps({name: [value] for name, value in trial.point.items()})
        given = [word for word in self.source.overrides if not word.startswith(_OF_THE_SPACE)]
        place = as_overrides({"run_dir": f"{self.root}-{trial.key}-measured"})
        measured = ["ldsaug", "tune", self.source.path, *given, f"tune.space={space}", *place]
        return [("measured again", shlex.join(measured)), ("as a whole run, fine-tuning too", self.command(trial))]

    def _run(self, point: Point, folder: str, model: str) -> Config:
        fixed = {
            **_EVALUATION,
            "run_dir": f"{self.root}/{folder}",
            "tracking.run_name": folder,
            "evaluate.models": [model],
            "tune": {},
        }
        for stage in ("decode", "finetune", "sample", "evaluate") if self.one_gpu else ():
            if getattr(self.config, stage).workers.count == "auto":
                fixed[f"{stage}.workers.count"] = 1
        return self.source.config(point, fixed)


def plan_search(path: str, overrides: Sequence[str] = ()) -> Search:
    """Read a search: a file of settings with the section `tune`.

    Raises:
        ConfigError: there is no space, a value is not possible, or an objective cannot be measured.
        UsageError: an override has no `=`.
        StorageError: the file cannot be read.
    """
    source = Source.read(path, overrides)
    config = source.config()
    space = space_of(config)
    asked = config.tune
    if asked.search == "grid":
        space.grid()
    check_objectives(asked.objectives, config.evaluate)
    trains = needs_training(asked.objectives)
    check_values(source, space, partial(_refuse, trains, asked.asha.grace_steps is not None))
    if (trains or needs_images(asked.objectives)) and config.evaluate.extractor is None:
        names = measures_in(asked.objectives)
        raise ConfigError(
            f"tune.objectives: {', '.join(names)} need{'s' * (len(names) == 1)} evaluate.extractor; a search without "
            f"it looks at {', '.join(m.name for m in OF_A if 'images' not in m.needs)}"
        )
    if config.evaluate.attributes and config.data.attributes is None:
        raise ConfigError("evaluate.attributes needs labelled images; set data.attributes, or leave it out")
    if config.data.test == 0:
        raise ConfigError("data.test = 0: a search compares with held-out real images; set aside some")
    if not trains:
        idle = [d.name for d in space.dimensions if d.name.split(".")[0] not in ("score", "select")]
        if idle:
            raise ConfigError(f"tune.space: {', '.join(idle)}: changes nothing that these objectives look at (A alone)")
    grace = asked.asha.grace_steps
    if grace is not None and not trains:
        raise ConfigError("tune.asha.grace_steps: there is no fine-tuning to stop with these objectives; leave it out")
    if grace is not None and grace >= config.finetune.steps:
        raise ConfigError(f"tune.asha.grace_steps = {grace} is not below finetune.steps = {config.finetune.steps}")
    if asked.register_as is not None and not trains:
        raise ConfigError("tune.register_as: these objectives need no fine-tuning, so that there is no model")
    return Search(source, config, space, trains)


def _refuse(trains: bool, pauses: bool, config: Config) -> None:
    """Raises ConfigError for settings that are possible in a run, but not in a trial of such a search."""
    if not trains and config.select.rule.sharpest:
        raise ConfigError(
            f"select.which={config.select.which} decodes first; these objectives look at A without decoding"
        )
    if not trains and config.select.rule.judged(config.select):
        raise ConfigError(f"select.rank={config.select.rank} decodes; these objectives look at A without decoding")
    if pauses and config.finetune.best_by is not None:
        raise ConfigError("tune.asha.grace_steps pauses a fine-tuning, which finetune.best_by would notice; drop one")
