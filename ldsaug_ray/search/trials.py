"""Trials of a search as they are kept: `trials/KEY/trial.json`, written once a trial is over.

A trial is known by its point alone, so that a search that goes on, or one with more trials, finds what was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ldsaug_ray.digest import fingerprint
from ldsaug_ray.errors import StorageError
from ldsaug_ray.search.space import Point
from ldsaug_ray.storage import Location

State = Literal["finished", "failed", "stopped"]


def key_of(point: Point) -> str:
    """Twelve hexadecimal digits, of the names and values."""
    return fingerprint(dict(sorted(point.items())))[:12]


@dataclass(frozen=True)
class Trial:
    """A point, how its trial ended, and what it came to.

    values: the objectives, less is better; none where it failed. measures: what they are made of, and more. why: of a
    failure, in words. identity: fingerprint of everything else that the numbers depend on; with another one the trial
    is done again. seconds: its own.
    """

    point: Mapping[str, Any]
    state: State
    values: tuple[float, ...]
    measures: Mapping[str, float | None]
    identity: str
    why: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Of its folder."""
        return key_of(self.point)

    def write(self, root: Location) -> None:
        """Keep it below `trials/` of the search's folder."""
        (root / f"trials/{self.key}/trial.json").write_json(asdict(self))

    @classmethod
    def read(cls, root: Location, key: str) -> Trial | None:
        """The trial with this key; None where it is not over.

        Raises:
            StorageError: the file is not one that `write` wrote.
        """
        file = root / f"trials/{key}/trial.json"
        if not file.exists():
            return None
        told = file.read_json()
        try:
            return cls(**{**told, "values": tuple(told["values"])})
        except (KeyError, TypeError):
            raise StorageError(f"{file.uri}: not a trial of ldsaug_ray; delete it and run again") from None


def all_trials(root: Location, identity: str) -> list[Trial]:
    """Every trial that is over and still counts, by key."""
    folder = root / "trials"
    found = (Trial.read(root, name) for name in folder.names())
    return [trial for trial in found if trial is not None and trial.identity == identity]


def front(trials: list[Trial]) -> list[Trial]:
    """The finished trials that no other one beats in every objective: the best one, or the Pareto front."""
    finished = [t for t in trials if t.state == "finished"]
    return [t for t in finished if not any(_beats(other, t) for other in finished)]


def _beats(a: Trial, b: Trial) -> bool:
    return all(x <= y for x, y in zip(a.values, b.values, strict=True)) and a.values != b.values
