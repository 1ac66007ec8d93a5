"""What an evaluation found, as a record; and `metrics.json`, the one file it is written to and read from.

The manifest holds a part of the same, so that reading does with what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ldsaug_ray.common.storage import Location
from ldsaug_ray.metrics.detection import Auroc, Detection

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a reader of a number must know of its measure.

    name: its key in `metrics.json`, letters, digits and _; title: in tables; better: which way, None where no way is:
    then a search cannot seek it; agreed: whether tables may show that as an arrow; shown: in an experiment's tables
    `compared` with the control, as a `mean`, or in its CSV alone.
    """

    name: str
    title: str
    better: Literal["more", "less"] | None
    agreed: bool = True
    shown: Literal["compared", "mean", "csv"] = "compared"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII) or self.name == "n":
            raise ValueError(f"the name of a measure must be letters, digits and _, and not n; found {self.name!r}")

    @property
    def arrow(self) -> str:
        """To what is better, where that is agreed."""
        return {"more": "↑", "less": "↓", None: ""}[self.better] if self.agreed else ""


@dataclass(frozen=True)
class Reading:
    """What a measure says of a set: the value, None where the images do not allow one; its standard error, None where
    none is known; further numbers by name; sentences for the reader.
    """

    value: float | None
    standard_error: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """Confidence limits, where there are any."""
        return (self.more["low"], self.more["high"]) if self.more.get("low") is not None else None

    def to_json(self) -> Json:
        """Without the notes, which stand together."""
        error = {} if self.standard_error is None else {"standard_error": self.standard_error}
        return {"value": self.value, **error, **self.more}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Reading:
        """What `to_json` wrote."""
        more = {name: x for name, x in stored.items() if name not in ("value", "standard_error")}
        return cls(stored["value"], stored.get("standard_error"), more)


@dataclass(frozen=True)
class SetReadings:
    """Of a set of n images: measure -> reading, in the order of the tables, and sentences on them."""

    n: int
    readings: Mapping[str, Reading] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def value(self, name: str) -> float | None:
        """Of a measure; None where it was not taken, or these images do not allow it."""
        return self.readings[name].value if name in self.readings else None

    def error(self, name: str) -> float | None:
        """Standard error of a measure; None where it has none, or was not taken."""
        return self.readings[name].standard_error if name in self.readings else None


@dataclass(frozen=True)
class Attribute:
    """Shares of an attribute: set -> reading, counted or from a probe. probe: what a reader must know of it, as plain
    numbers."""

    probe: Mapping[str, Any]
    shares: Mapping[str, Reading]

    @property
    def categorical(self) -> bool:
        """Whether there are many values: a reading is the total variation distance to the test split then."""
        return "values" in self.probe

    @property
    def balanced_accuracy(self) -> float:
        """Of the probe, on test images."""
        return float(self.probe["balanced_accuracy"]["value"])


@dataclass(frozen=True)
class UsedExtractor:
    """What made the features."""

    name: str
    dimension: int
    fingerprint: str = ""
    resize: int | None = None


@dataclass(frozen=True)
class Evaluated:
    """All that `evaluate` found.

    n_test: test images, the reference; k: neighbours; prior: what latents were drawn from; sets: name -> readings, the
    test images' last; detection: LDS as a detector, None where that was not looked at; own: measures of the user's;
    downstream: of classifiers that learned from A, plain numbers.
    """

    extractor: UsedExtractor
    n_test: int
    k: int
    sets: Mapping[str, SetReadings]
    resolution: int = 0
    prior: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    detection: tuple[Detection, ...] | None = None
    own: tuple[Described, ...] = ()
    downstream: Mapping[str, Any] | None = None

    def to_json(self) -> Json:
        """The content of `metrics.json`."""
        own = {m.name: {"title": m.title, "better": m.better, "agreed": m.agreed, "shown": m.shown} for m in self.own}
        sets = {
            name: {"n": of.n, **{measure: r.to_json() for measure, r in of.readings.items()}}
            for name, of in self.sets.items()
        }
        e = self.extractor
        return {
            "extractor": {"name": e.name, "fingerprint": e.fingerprint, "dimension": e.dimension, "resize": e.resize},
            "reference": {"set": "test", "n": self.n_test},
            "resolution": self.resolution,
            "k": self.k,
            "prior": self.prior,
            "sets": sets,
            "attributes": {
                name: {"probe": dict(of.probe), "shares": {s: r.to_json() for s, r in of.shares.items()}}
                for name, of in self.attributes.items()
            },
            "notes": {name: list(of.notes) for name, of in self.sets.items() if of.notes or name != "test"},
            **({} if self.detection is None else {"detection": [asdict(found) for found in self.detection]}),
            **({} if self.downstream is None else {"downstream": dict(self.downstream)}),
            **({"measures": own} if own else {}),
        }

    @classmethod
    def read(cls, file: Location) -> Evaluated:
        """From a `metrics.json`. Raises StorageError where it cannot be read."""
        return cls.from_json(file.read_json())

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Evaluated:
        """What `to_json` wrote, or the manifest's part of it."""
        notes = stored.get("notes", {})
        sets = {}
        for name, of in stored["sets"].items():
            readings = {measure: Reading.from_json(x) for measure, x in of.items() if isinstance(x, Mapping)}
            sets[name] = SetReadings(of["n"], readings, tuple(notes.get(name, ())))
        detection = stored.get("detection")
        return cls(
            UsedExtractor(**stored["extractor"]),
            stored["reference"]["n"] if "reference" in stored else sets["test"].n,
            stored["k"],
            sets,
            stored.get("resolution", 0),
            stored.get("prior", ""),
            {
                name: Attribute(of["probe"], {s: Reading.from_json(r) for s, r in of["shares"].items()})
                for name, of in stored.get("attributes", {}).items()
            },
            None
            if detection is None
            else tuple(Detection(**{**found, "auroc": Auroc(**found["auroc"])}) for found in detection),
            tuple(Described(name=name, **of) for name, of in stored.get("measures", {}).items()),
            stored.get("downstream"),
        )
