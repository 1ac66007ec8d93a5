"""The stages of a run: their order, what each needs and writes, and when its result still counts.

A stage's fingerprint covers the settings that change its result and the digests of what it reads. A stage is complete
when the manifest has an entry with the same fingerprint; settings that only change how the work is done (workers,
checkpoint intervals, tiles) do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, Literal

from ldsaug_ray.common.digest import code_digest, fingerprint
from ldsaug_ray.common.registry import room_of
from ldsaug_ray.config import Config, counted

FORMAT = 1  # raised when a stage's files change meaning, so that old run directories are recomputed


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline."""

    name: str
    does: str
    unit: str  # what its rows are
    writes: tuple[str, ...]  # folders of the run directory, deleted when the stage is recomputed
    needs: tuple[str, ...] = ()  # stages
    uses: tuple[str, ...] = ()  # read where they are complete, not needed
    sections: tuple[str, ...] = ()  # of the settings, which change the result but for fields marked otherwise
    also: Callable[[Config], Mapping[str, Any]] = lambda config: {}  # of other sections
    code: Callable[[Config], tuple[str, ...]] = lambda config: ()  # names; the code of own ones counts
    reads: Callable[[Config], tuple[str, ...]] = lambda config: ()  # stages whose content counts with these settings
    on_driver: Callable[[Config], bool] = lambda config: False  # asks the engine for nothing
    role: Literal["stage", "command", "kept"] = "stage"  # of a run; by itself; only part of another

    def inputs(self, config: Config) -> tuple[str, ...]:
        """Stages whose digests the fingerprint covers, where they are complete."""
        return (*self.needs, *self.uses, *self.reads(config))

    def fingerprint(self, config: Config, digests: Mapping[str, str], inputs: str = "", *, later: bool = True) -> str:
        """Identity of the stage's result.

        Args:
            digests: content digest of every stage in `needs`, and of those in `uses` that are complete.
            inputs: identity of anything outside the run directory (the image source).
            later: with settings that count since a later version than the first; else as it was before.
        """
        tree = counted(config, later=later)
        own = {"code": code} if (code := code_digest(self.code(config))) else {}
        settings = {**{name: tree[name] for name in self.sections}, **self.also(config), **own}
        return fingerprint(
            [FORMAT, self.name, settings, {n: digests[n] for n in self.inputs(config) if n in digests}, inputs]
        )


def identity(config: Config) -> str:
    """Identity of what a whole run gives: settings that only change how, or where it is written, do not count."""
    code = code_digest(path for stage in STAGES.values() for path in stage.code(config))
    return fingerprint([FORMAT, counted(config), *filter(None, [code])])


class Stages(Mapping[str, Stage]):
    """What the modules of `stages/` declare, by name, stages of a run first, each after those that it reads.

    They are imported when somebody looks: this room lies below them.
    """

    def __init__(self, *roles: str):
        self._roles = roles

    @cached_property
    def _found(self) -> dict[str, Stage]:
        room_of("stages")
        found = {name: stage for name, stage in _DECLARED.items() if stage.role in self._roles}
        order = TopologicalSorter({name: (*stage.needs, *stage.uses) for name, stage in found.items()})
        names = sorted(order.static_order(), key=lambda name: found[name].role != "stage")
        return {name: found[name] for name in names}

    def __getitem__(self, name: str) -> Stage:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._found)

    def __len__(self) -> int:
        return len(self._found)


_DECLARED: dict[str, Stage] = {}
STAGES = Stages("stage")
COMMANDS = Stages("stage", "command")
KEPT = Stages("stage", "command", "kept")  # what may stand in a manifest


def declare(stage: Stage) -> Stage:
    """Make a stage known, and give it back. Raises ValueError for a name that is taken: a mistake in the code."""
    if stage.name in _DECLARED:
        raise ValueError(f"there are two stages named {stage.name!r}")
    _DECLARED[stage.name] = stage
    return stage
