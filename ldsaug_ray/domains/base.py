"""What a domain is: how one kind of data is read, stored, given to users, judged and shown; all that stages know of it.

A batch is a NumPy array with one row an item, such as uint8[N, R, R, 3] of images. A domain holds no state: what it
depends on comes with the settings, and with the facts that it learned of the training items.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import CommonData, Config
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.sources.opening import open_source
from ldsaug_ray.domains.sources.stamp import source_stamp
from ldsaug_ray.domains.sources.walk import Files

Array = NDArray[Any]


class Unusable(Exception):
    """An item that cannot become a row of a batch; the text says why, in a few words."""


class Domain(ABC):
    """One kind of data.

    Attributes:
        name: as the setting `domain` has it.
        unit, item: what many and one are called.
        pictures: whether a batch is uint8[N, R, R, 3], which a discriminator and networks of images can judge.
        column: of stored items, as `prepare` writes them and as users get them.
        prepares: what stage `prepare` does, for the help.
        files: what its sources hold, where `open_source` reads them.
        data: section `data` of its settings.
        codec: the `vae.kind` of those who name none.
        extractor: what makes features where `measure` is given none; none: it must be named.
        metadata: of Parquet files of what `export` gives, such as the note of Hugging Face's.
        exported: what `export` gives, in a few words; task: the Hub's name of making such items, or none.
        qualities: what `quality` tells of each item.
        reading: settings of `data` that count where `measure` takes items as they come; none: all do.
        damages: kinds that `damage` knows.
        defaults: of settings in other sections than `data`, as a tree.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    item: ClassVar[str]
    pictures: ClassVar[bool] = False
    column: ClassVar[str]
    prepares: ClassVar[str]
    files: ClassVar[Files]
    data: ClassVar[type[CommonData]]
    codec: ClassVar[str]
    extractor: ClassVar[str | None] = None
    metadata: ClassVar[Mapping[str, str] | None] = None
    exported: ClassVar[str]
    task: ClassVar[str | None] = None
    qualities: ClassVar[tuple[str, ...]] = ()
    reading: ClassVar[tuple[str, ...]] = ()
    damages: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}

    def open(self, data: Any) -> Source:
        """The items at data.source, listed and not read; errors as of `open_source`."""
        return open_source(data, self.files)

    def stamp(self, data: Any) -> str:
        """What identifies the source without reading it; errors as of `source_stamp`."""
        return source_stamp(data, self.files)

    @abstractmethod
    def read(self, payload: Any, data: Any) -> Array:
        """What the source gave of one item as a row of a batch. Raises Unusable."""

    def read_whole(self, payload: Any, data: Any) -> Array:
        """The same for `measure`, at the item's own size where features of any can be made. Raises Unusable."""
        return self.read(payload, data)

    def size(self, data: Any) -> str:
        """What all items have, in the caption of an experiment: "64 px"; or nothing."""
        return ""

    def made(self, payload: Any, data: Any) -> Array:
        """As `read_whole`, of what a model made: what would not do as data, and counts in a measure, is a row too."""
        return self.read_whole(payload, data)

    @abstractmethod
    def empty(self, data: Any) -> Array:
        """A batch without rows."""

    @abstractmethod
    def pack(self, batch: Array) -> pa.Array:
        """The column that `prepare` stores; without nulls."""

    @abstractmethod
    def unpack(self, table: pa.Table, column: str | None = None) -> Array:
        """A batch of a column, by custom `self.column`, that `pack` or `export` made."""

    @abstractmethod
    def export(self, batch: Array, names: Sequence[str], facts: Mapping[str, Any]) -> pa.Array:
        """The column that users get. names: one an item, for domains whose items are files; facts: of `learn`."""

    @abstractmethod
    def show(self, batch: Array, facts: Mapping[str, Any]) -> list[str]:
        """A fragment of HTML an item, that needs nothing else; what comes from the data is escaped."""

    def pixels(self, batch: Array) -> NDArray[np.uint8] | None:
        """uint8[N, R, R, 3] where a picture is all there is to show: the report then makes sheets of them; or none."""
        return None

    def beside(self, real: Array, made: Array, facts: Mapping[str, Any]) -> list[str]:
        """Fragments of HTML for the report that set items of A beside real ones; []: nothing beyond the measures."""
        return []

    def learn(self, batches: Iterator[Array], source: Source, data: Any) -> dict[str, Any]:
        """What later stages must know of all training items (a vocabulary, columns), for JSON; {}: nothing.

        `notes`, sentences that the user should read, are told at once.
        """
        return {}

    def alike(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of `data` with which items from elsewhere are read as those that `facts` were learned of."""
        return {}

    def unseen(self, facts: Mapping[str, Any], data: Any) -> Callable[[Array], Sequence[str]] | None:
        """What says of each item of a test batch why a model of the training items cannot take it, "" where it can, so
        that `prepare` quarantines it; facts: of `learn`. None: it can take all.
        """
        return None

    def quality(self, batch: Array) -> dict[str, NDArray[np.float64]]:
        """Numbers of each item by name, float64[N]: `qualities`."""
        return {}

    def usable(self, quality: Mapping[str, NDArray[np.float64]]) -> NDArray[np.bool_] | slice:
        """Rows, of items with these qualities, that features are measured of."""
        return slice(None)

    def damage(self, batch: Array, kind: str, seed: int, numbers: NDArray[np.int64]) -> Array:
        """Corrupted copies; an item's depends on (seed, its number) alone. Raises ValueError for an unknown kind."""
        raise ValueError(f"{self.unit} are not damaged by {kind}; known: {', '.join(self.damages) or 'nothing'}")

    def hashes(self, batch: Array, data: Any) -> NDArray[np.uint64] | None:
        """uint64[N, 2] that differ in at most data.near_duplicates bits where items are nearly the same; or none."""
        return None

    def words(self, text: str) -> str:
        """A sentence on images as one on these items."""
        of = {"images": self.unit, "image": self.item}
        of |= {word.capitalize(): new.capitalize() for word, new in of.items()}
        return re.sub(r"(?<![\w.:/=])[Ii]mages?(?![\w/]|\.\w)", lambda found: of[found[0]], text)


DOMAINS: Registry[Domain] = Registry("domain", Domain)  # type: ignore[type-abstract]


def domain_of(config: Config) -> Domain:
    """The domain that the settings name."""
    return DOMAINS.get(config.domain)
