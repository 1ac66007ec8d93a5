"""An experiment's runs: for each cell (training-set size, seed) the baseline, then every arm, with its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldsaug_ray.config import Config, load_config
from ldsaug_ray.errors import ConfigError

BASELINE = "baseline"
# the baseline's own evaluation tells whether LDS detects damaged images; it would be the same in every arm
_EVALUATION: Mapping[str, Any] = {
    "evaluate.models": ["finetune"],
    "evaluate.detection.corruptions": [],
    "evaluate.detection.others": None,
}


@dataclass(frozen=True)
class Cell:
    """One repetition: training images (none: what data.train says) and seed."""

    train: int | None
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"seed{self.seed}" if self.train is None else f"n{self.train}-seed{self.seed}"


@dataclass(frozen=True)
class ArmRun:
    """One arm in one cell: an ordinary run with these settings."""

    arm: str
    cell: Cell
    config: Config


@dataclass(frozen=True)
class Plan:
    """Settings of the experiment, and its runs in the order of the work: cell by cell, the baseline first."""

    config: Config
    runs: tuple[ArmRun, ...]

    @property
    def cells(self) -> list[Cell]:
        return list(dict.fromkeys(run.cell for run in self.runs))

    def of(self, cell: Cell) -> list[ArmRun]:
        """The runs of a cell, the baseline first."""
        return [run for run in self.runs if run.cell == cell]


def plan_experiment(path: str, overrides: Sequence[str] = ()) -> Plan:
    """Read an experiment: a file of settings with the section `experiment`.

    An arm's settings are applied as if they stood last on the command line, before defaults are filled in.

    Raises:
        ConfigError: there are no arms, nothing would be measured, or the settings of an arm are wrong.
        UsageError: an override has no `=`.
        StorageError: the file cannot be read.
    """
    config = load_config(path, overrides)
    asked = config.experiment
    if not asked.arms:
        raise ConfigError(f"{path}: experiment.arms names no arm; configs/experiments/paper.yaml is an example")
    if config.evaluate.extractor is None:
        raise ConfigError(f"{path}: an experiment compares measures; set evaluate.extractor")
    runs = []
    for seed in asked.seeds:
        for train in asked.train or (None,):
            cell = Cell(train, seed)
            runs.append(_run(path, overrides, config, BASELINE, cell, {"evaluate.models": ["train"]}))
            for name, arm in asked.arms.items():
                runs.append(_run(path, overrides, config, name, cell, {**arm.settings, **_EVALUATION}))
    return Plan(config, tuple(runs))


def _run(
    path: str, overrides: Sequence[str], config: Config, arm: str, cell: Cell, settings: Mapping[str, Any]
) -> ArmRun:
    place = f"{config.run_dir.rstrip('/')}/arms/{arm}/{cell.name}"
    fixed = {"seed": cell.seed, "run_dir": place, "tracking.run_name": f"{arm} {cell.name}", "experiment": {}}
    if cell.train is not None:
        fixed["data.train"] = cell.train
    given = [f"{name}={json.dumps(value, default=str)}" for name, value in {**settings, **fixed}.items()]
    try:
        return ArmRun(arm, cell, load_config(path, [*overrides, *given]))
    except ConfigError as e:
        where = "experiment.train" if arm == BASELINE else f"experiment.arms.{arm}.settings"
        raise ConfigError(f"{where}: {e}") from None
