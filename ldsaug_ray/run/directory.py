"""The run directory: `config.yaml`, `manifest.json`, a folder per stage, and the markers that let a stage go on.

A stage is complete when its manifest entry is there, written last. While it runs, each unit of its work leaves a
marker under `_progress/STAGE/` once the unit's files are whole; running the same command again does the other units.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from ldsaug_ray.common.digest import add_digests, digest_text
from ldsaug_ray.common.secrets import without_passwords
from ldsaug_ray.common.storage import Location, Place
from ldsaug_ray.config import Config
from ldsaug_ray.errors import MissingStageError, StorageError
from ldsaug_ray.run.pipeline import FORMAT, KEPT

_READERS = 32
# libyaml's, eight times as fast, where PyYAML has it
_LOADER, _DUMPER = (getattr(yaml, f"CSafe{end}", getattr(yaml, f"Safe{end}")) for end in ("Loader", "Dumper"))
_OF_SEARCHES = ("search", "trials", "scorings", "baseline")
FACTS = "images/facts.json"
CHECKPOINTS = "checkpoints"  # folder of a training in that of its stage
CHECKPOINTS_OF_RAY = "ray"  # the same before version 0.2, when Ray Train kept them
_ENTRY = {"fingerprint", "digest", "rows_in", "rows_out", "rows_dropped", "rows_quarantined", "seconds"}


@dataclass(frozen=True)
class Counts:
    """Rows of a stage or a unit: in = out + dropped + quarantined, always."""

    rows_in: int = 0
    rows_out: int = 0
    rows_dropped: int = 0
    rows_quarantined: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows_in + other.rows_in,
            self.rows_out + other.rows_out,
            self.rows_dropped + other.rows_dropped,
            self.rows_quarantined + other.rows_quarantined,
        )

    def check(self, where: str) -> None:
        """Raise where rows were lost.

        Raises:
            StorageError: in differs from out + dropped + quarantined.
        """
        if self.rows_in != self.rows_out + self.rows_dropped + self.rows_quarantined:
            raise StorageError(
                f"{where}: {self.rows_in} rows went in, but {self.rows_out} came out, {self.rows_dropped} were dropped "
                f"and {self.rows_quarantined} quarantined; please report this as a bug"
            )


@dataclass(frozen=True)
class UnitResult:
    """What a finished unit of work leaves in its marker."""

    unit: int
    counts: Counts
    digest: int
    files: tuple[str, ...] = ()
    file_rows: tuple[int, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As stored; the digest as text, since JSON readers lose large integers."""
        return {**asdict(self), "digest": digest_text(self.digest)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UnitResult:
        """The inverse of `to_json`."""
        return cls(
            value["unit"],
            Counts(**value["counts"]),
            int(value["digest"], 16),
            tuple(value["files"]),
            tuple(value["file_rows"]),
            value["extra"],
        )


def facts_of(run: Location) -> dict[str, Any]:
    """What the domain learned of the training items when they were prepared; {}: nothing."""
    file = run / FACTS
    return dict(file.read_json()) if file.exists() else {}


class RunDir:
    """A run directory on any file system. Create with `open_run_dir`."""

    def __init__(self, root: Place):
        self.root = Location.of(root)
        self.manifest = self._read_manifest()

    def folder(self, name: str) -> Location:
        """A folder or file below the run directory."""
        return self.root / name

    def entry(self, stage: str) -> dict[str, Any] | None:
        """The manifest's entry of a complete stage."""
        return self.manifest["stages"].get(stage)

    def require(self, stage: str, field_name: str | None = None) -> Any:
        """The entry of a complete stage, or one field of it.

        Raises:
            MissingStageError: the stage has not been completed.
        """
        entry = self.entry(stage)
        if entry is None:
            raise MissingStageError(
                f"{self.root.uri}: stage {stage} is not complete; run `ldsaug {stage}` or `ldsaug run` first"
            )
        return entry if field_name is None else entry[field_name]

    def reset(self, stage: str) -> None:
        """Forget a stage: its entry first, then its files."""
        if self.manifest["stages"].pop(stage, None) is not None:
            self._write_manifest()
        for folder in (f"_progress/{stage}", *KEPT[stage].writes):  # no marker may outlive its files
            (self.root / folder).delete()

    def begin(self, stage: str, fingerprint: str) -> dict[int, UnitResult]:
        """Start or go on with a stage; returns the units that an interrupted attempt finished.

        Files of another fingerprint, and those of a complete stage that is done again, are deleted, never mixed with
        new ones.
        """
        if self.entry(stage) is not None or not self.interrupted(stage, fingerprint):
            self.reset(stage)
            (self.root / f"_progress/{stage}/started.json").write_json({"fingerprint": fingerprint})
        return self.finished_units(stage)

    def interrupted(self, stage: str, fingerprint: str) -> bool:
        """Whether an attempt with this fingerprint was begun and not finished."""
        started = self.root / f"_progress/{stage}/started.json"
        return started.exists() and started.read_json() == {"fingerprint": fingerprint}

    def is_complete(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was finished with this fingerprint, and none of its files has gone since."""
        entry = self.entry(stage)
        if entry is None or entry["fingerprint"] != fingerprint:
            return False
        return self.file_count(stage) >= int(entry["files"])

    def holds_other(self, stage: str, fingerprint: str) -> bool:
        """Whether there is a result of the stage, or a part of one, with another fingerprint."""
        entry = self.entry(stage)
        if entry is not None:
            return bool(entry["fingerprint"] != fingerprint)
        return (self.root / f"_progress/{stage}/started.json").exists() and not self.interrupted(stage, fingerprint)

    def finished_units(self, stage: str) -> dict[int, UnitResult]:
        """Units with a marker, by number."""
        markers = (self.root / f"_progress/{stage}").files(".unit.json")
        if self.root.is_local:
            return {u.unit: u for u in map(_read_marker, markers)}
        with ThreadPoolExecutor(_READERS) as pool:  # each waits for its answer, not for a processor
            return {u.unit: u for u in pool.map(_read_marker, markers)}

    def finished_parts(self, stage: str) -> list[tuple[str, int]]:
        """Files of the finished units and their rows, in order."""
        units = self.finished_units(stage)
        return [p for n in sorted(units) for p in zip(units[n].files, units[n].file_rows, strict=True)]

    def finish(
        self, stage: str, fingerprint: str, counts: Counts, digest: str, seconds: float, processed: int, **facts: Any
    ) -> None:
        """Write the manifest entry: from here on the stage is complete.

        Args:
            stage, fingerprint, digest: identity of the stage and its result.
            seconds: of this attempt.
            processed: rows that this attempt worked on, for the rate.
        """
        counts.check(f"stage {stage}")
        self.manifest["stages"][stage] = {
            "fingerprint": fingerprint,
            **asdict(counts),
            "seconds": round(seconds, 3),
            "rows_per_second": round(processed / seconds, 3) if seconds > 0 else None,
            "digest": digest,
            "files": self.file_count(stage),
            **facts,
        }
        self._write_manifest()

    def adopt(self, stage: str, other: RunDir) -> None:
        """Take over a stage that is complete in another run directory: its files, then its entry."""
        entry = other.require(stage)
        self.reset(stage)
        for folder in (*KEPT[stage].writes, f"_progress/{stage}"):  # markers last, and of these the one that it began
            (other.root / folder).copy_to(self.root / folder)
        self.manifest["stages"][stage] = entry
        self._write_manifest()

    def file_count(self, stage: str) -> int:
        """Files of a stage and its markers, without checkpoints, which go once it is complete: fewer than it had then
        means that some were deleted since."""
        folders = [self.root / folder for folder in (*KEPT[stage].writes, f"_progress/{stage}")]
        apart = tuple(f"{f.path}/{name}/" for f in folders for name in (CHECKPOINTS, CHECKPOINTS_OF_RAY))
        return sum(not file.path.startswith(apart) for folder in folders for file in folder.files())

    def create(self) -> None:
        """Make the folder and its manifest, where they are not there yet.

        Raises:
            StorageError: it cannot be written to.
        """
        self.root.make_folder()
        _check_writable(self.root)
        if not (self.root / "manifest.json").exists():
            self._write_manifest()

    def save_config(self, config: Config) -> None:
        """Write the resolved settings."""
        text = yaml.dump(without_passwords(config.dump()), Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
        (self.root / "config.yaml").write_bytes(text.encode())

    def saved_config(self) -> dict[str, Any] | None:
        """The settings that last wrote here, as a plain tree."""
        location = self.root / "config.yaml"
        if not location.exists():
            return None
        try:
            tree = yaml.load(location.read_text(), _LOADER)
        except yaml.YAMLError:
            tree = None
        if not isinstance(tree, dict) or not isinstance(tree.get("data"), dict):
            raise StorageError(f"{location.uri}: not the settings of a run; delete it if the run directory is yours")
        return tree

    def note(self, name: str, value: Any) -> None:
        """Keep a fact about the run beside the stages (such as its MLflow run)."""
        self.manifest[name] = value
        self._write_manifest()

    def _read_manifest(self) -> dict[str, Any]:
        location = self.root / "manifest.json"
        if not location.exists():
            return {"format": FORMAT, "stages": {}}
        manifest = location.read_json()
        stages = manifest.get("stages") if isinstance(manifest, dict) else None
        if (
            not isinstance(stages, dict)
            or not isinstance(manifest.get("format"), int)
            or not all(isinstance(e, dict) and e.keys() >= _ENTRY for e in stages.values())
        ):
            raise StorageError(f"{location.uri}: not a manifest of ldsaug_ray; choose another run_dir")
        if manifest["format"] > FORMAT:
            raise StorageError(
                f"{location.uri}: written by a newer ldsaug_ray (format {manifest['format']} > {FORMAT})"
            )
        return {**manifest, "format": FORMAT}

    def _write_manifest(self) -> None:
        (self.root / "manifest.json").write_json(self.manifest)


def mark(run: Location, stage: str, result: UnitResult) -> None:
    """Leave the marker of a finished unit; its files must be whole by now."""
    result.counts.check(f"stage {stage}, unit {result.unit}")
    (run / marker_of(stage, result.unit)).write_json(result.to_json())


def marker_of(stage: str, unit: int) -> str:
    """Its file, below the run directory."""
    return f"_progress/{stage}/{unit:06d}.unit.json"


def _read_marker(marker: Location) -> UnitResult:
    value = marker.read_json()
    try:
        return UnitResult.from_json(value)
    except (KeyError, TypeError, ValueError):
        raise StorageError(f"{marker.uri}: not the marker of a finished unit; delete it and run again") from None


def total(results: Iterable[UnitResult]) -> tuple[Counts, str]:
    """Counts and digest of all units together."""
    units = list(results)
    counts = sum((u.counts for u in units), Counts())
    return counts, digest_text(add_digests([u.digest for u in units]))


def _check_writable(root: Location) -> None:
    probe = root / f".write-probe-{os.getpid()}"
    probe.write_bytes(b"ok")
    probe.delete()
