"""A training that is asked to stop, or to save, in the middle: what is kept, and that it ends as an undisturbed one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from stages_helpers import Tree, manifest, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines import inline
from ldsaug_ray.engines.ray import training as ray_training
from ldsaug_ray.models import Trainer
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages.shared import clock
from ldsaug_ray.stages.shared.checkpoints import Checkpoints
from ldsaug_ray.stages.shared.clock import steps_between_looks

# checkpoints of the settings' own at 4, 8, 12; log points at 3, 6, …: what is between both must not be lost
STEPS = {"finetune": {"steps": 12, "checkpoint_every": 4, "log_every": 3, "num_to_keep": 1}}
BEST = {"finetune": {"best_by": "reconstruction", "learning_rate": 0.3, "adam_betas": [0.9, 0.99]}}


@pytest.fixture(autouse=True)
def _looks_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.0)


def finetune(settings: Tree) -> None:
    assert run_command(Config.model_validate(settings), "finetune") == 0


def outcome(settings: Tree) -> tuple[object, ...]:
    """Digest, the step and terms of the weights that count, the loss curve."""
    entry = manifest(settings)["finetune"]
    curve = json.loads((Path(settings["run_dir"]) / "finetune/curve.json").read_text())
    return entry["digest"], entry["steps"], entry["final"], curve


def undisturbed(settings: Tree) -> tuple[object, ...]:
    """What the fine-tuning gives; it is then to be done again."""
    finetune(settings)
    found = outcome(settings)
    RunDir(Location.of(settings["run_dir"])).reset("finetune")
    return found


def kept(settings: Tree) -> list[int]:
    return [c.step for c in Checkpoints(Location.of(settings["run_dir"]), "finetune").all()]


@pytest.mark.parametrize("changes", [{}, BEST], ids=["last", "best"])
@pytest.mark.parametrize("during", [3, 7])
def test_stopped_in_a_step_it_keeps_it_and_ends_as_if_undisturbed(copied, monkeypatch, capsys, changes, during):
    settings = merge(merge(copied, STEPS), changes)
    expected = undisturbed(settings)
    assert (expected[1] == 12) == (not changes)  # with `best_by` an earlier checkpoint wins
    take = Trainer.train_step

    def interrupted(self: Trainer, *rest: object) -> object:
        if self.step == during - 1:
            signal.raise_signal(signal.SIGINT)
        return take(self, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(settings)
    assert kept(settings)[-1] == during
    assert f"finetune: saved at step {during}\n" in capsys.readouterr().err
    finetune(settings)
    assert manifest(settings)["finetune"]["resumed_from_step"] == during
    assert outcome(settings) == expected


def test_asked_to_save_it_goes_on(copied, monkeypatch):
    settings = merge(copied, merge(STEPS, BEST))
    expected = undisturbed(settings)
    asked = iter([None, None, "save"])
    saved: list[int] = []
    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(inline._Rank, "asked", lambda self: next(asked, None))
        patch.setattr(Checkpoints, "save", lambda self, step, *rest: (saved.append(step), save(self, step, *rest)))
        finetune(settings)
    assert saved == [3, 4, 8, 12]
    assert outcome(settings) == expected


def test_looks_are_a_second_apart_whatever_a_step_takes(monkeypatch):
    monkeypatch.setattr(clock, "LOOK_SECONDS", 1.0)
    assert steps_between_looks(10, 0.5) == 20
    assert steps_between_looks(10, 0.8) == 12
    assert steps_between_looks(10, 5.0) == 2
    assert steps_between_looks(10, 100.0) == 1
    assert steps_between_looks(1, 0.0) == 2
    apart, seconds = 1, 0.0
    for _ in range(20):  # of 3 ms each
        seconds, apart = 0.003 * apart, steps_between_looks(apart, 0.003 * apart)
    assert apart in range(300, 334)
    assert seconds == pytest.approx(1, rel=0.1)


class Notice:
    """As Ray Train's."""

    def __init__(self, *nodes: str):
        self.preempted_node_ids = list(nodes)


def test_a_rank_of_ray_saves_once_for_each_node_that_is_leaving(monkeypatch):
    notices = iter([None, Notice("a"), Notice("a"), Notice("a", "b"), Notice("a", "b")])
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: next(notices))
    rank = object.__new__(ray_training._Rank)
    rank.world, rank._leaving = 1, []
    assert [rank.asked() for _ in range(5)] == [None, "save", None, "save", None]
