"""Checkpoints of a training: folders `STAGE/checkpoints/STEP/`, whatever the engine; the last file written makes one.

They serve resuming and, with `best_by`, say which weights the stage gives; they go once the stage is complete.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ldsaug_ray.common.storage import Location
from ldsaug_ray.run.directory import CHECKPOINTS, CHECKPOINTS_OF_RAY

RECORD = "facts.json"  # written last
NOT_RESULTS = ("trainer.safetensors", "progress.json", RECORD)  # files that only serve resuming


@dataclass(frozen=True)
class Checkpoint:
    """One that is whole."""

    folder: Location
    step: int

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """`facts` for the manifest, `metrics` since the checkpoint before, and the `score` it is ranked by."""
        found: Mapping[str, Any] = (self.folder / RECORD).read_json()
        return found

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A folder of this machine with its files."""
        if self.folder.is_local:
            yield Path(self.folder.path)
            return
        with TemporaryDirectory(prefix="ldsaug-") as name:
            self.folder.copy_to(Location.of(name))
            yield Path(name)

    def take_weights(self, folder: Location) -> None:
        """Copy what is a result."""
        for file in self.folder.files():
            if file.name not in NOT_RESULTS:
                (folder / file.name).write_bytes(file.read_bytes())


class Checkpoints:
    """Those of one stage of a run directory."""

    def __init__(self, run: Location, stage: str):
        self.folder = run / f"{stage}/{CHECKPOINTS}"
        self._of_ray = run / f"{stage}/{CHECKPOINTS_OF_RAY}/run"

    def all(self) -> list[Checkpoint]:
        """Whole ones, by step; where there are none, those that Ray Train kept for versions before 0.2."""
        ours = [Checkpoint(self.folder / name, int(name)) for name in self.folder.names() if name.isdigit()]
        whole = [c for c in ours if (c.folder / RECORD).exists()]
        return sorted(whole or self._kept_by_ray(), key=lambda c: c.step)

    def _kept_by_ray(self) -> list[Checkpoint]:
        listed = self._of_ray / "checkpoint_manager_snapshot.json"  # a folder that is not in it may be cut off
        if not listed.exists():
            return []
        kept = [self._of_ray / found["checkpoint_dir_name"] for found in listed.read_json()["checkpoint_results"]]
        return [Checkpoint(folder, int((folder / RECORD).read_json()["facts"]["steps"])) for folder in kept]

    def last(self) -> Checkpoint | None:
        """The one to go on from."""
        return max(self.all(), key=lambda c: c.step, default=None)

    def of(self, step: int) -> Checkpoint:
        """The one of that step, which is there, listed or not."""
        return next((c for c in self.all() if c.step == step), Checkpoint(self.folder / _name(step), step))

    def best(self) -> Checkpoint | None:
        """The one with the smallest score; the last of those that have none."""
        return min(self.all(), key=lambda c: (_score(c), -c.step), default=None)

    def save(self, step: int, files: Path, record: Mapping[str, Any]) -> None:
        """Keep the files of a folder of this machine, and then the record."""
        folder = self.folder / _name(step)
        for file in sorted(files.iterdir()):
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / RECORD).write_json(record)

    def prune(self, keep: int, *, scored: bool) -> None:
        """Delete all but the last and, up to `keep` of them, the best (scored), else the newest."""
        found = self.all()
        order = sorted(found, key=lambda c: (_score(c), -c.step)) if scored else found[::-1]
        for old in order[keep:]:
            if old.step != found[-1].step:
                (old.folder / RECORD).delete()  # first: what is left of it is none
                old.folder.delete()

    def delete(self) -> None:
        """All of them."""
        self.folder.delete()
        self._of_ray.parent.delete()


def _name(step: int) -> str:
    return f"{step:08d}"


def _score(checkpoint: Checkpoint) -> float:
    return float(checkpoint.record.get("score", math.inf))
