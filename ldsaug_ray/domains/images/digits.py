"""scikit-learn's handwritten digits as a source: 1,797 real grey images of 8 x 8 px that need no download.

They are encoded as PNG, so that they take the same way as any other image. Attributes, used only with
data.attributes=columns: `even` (0, 2, 4, 6, 8), `label_ge_5` (5 to 9), `closed_loop` (0, 6, 8, 9: drawn with a hole);
and where data.attribute_names has it, `digit`, the label itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ldsaug_ray.domains.images.stored import png_bytes
from ldsaug_ray.domains.sources.base import Attributes, Reading, Source, check_names, listing

_ATTRIBUTES = {"even": {0, 2, 4, 6, 8}, "label_ge_5": {5, 6, 7, 8, 9}, "closed_loop": {0, 6, 8, 9}}
_DIGIT = "digit"


class DigitsSource(Source):
    """`sklearn.datasets.load_digits`; key `digit-0000` and so on, in scikit-learn's order."""

    def __init__(self, with_attributes: bool = False, names: tuple[str, ...] | None = None) -> None:
        """`names`: the attributes to give, none: all three.

        Raises:
            InputError: an attribute that the digits do not have.
        """
        self.uri = "sklearn:digits"
        if with_attributes:
            check_names(names, [*_ATTRIBUTES, _DIGIT], f"{self.uri} has no attribute")
        self.attribute_names = tuple(names or _ATTRIBUTES) if with_attributes else ()
        self.categorical = frozenset({_DIGIT} & set(self.attribute_names))

    def list(self) -> pa.Table:
        """See `Source.list`."""
        n = len(self._load()[1])
        return listing([f"digit-{i:04d}" for i in range(n)], [""] * n, range(n), [-1] * n)

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`."""
        images, labels = self._load()
        for i in records["index"].to_pylist():
            yield png_bytes(images[i]), None, self._attributes(int(labels[i]))

    def _attributes(self, label: int) -> Attributes | None:
        if not self.attribute_names:
            return None
        values = {name: 1 if label in those else -1 for name, those in _ATTRIBUTES.items()} | {_DIGIT: label}
        return {name: values[name] for name in self.attribute_names}

    def _load(self) -> tuple[np.ndarray, np.ndarray]:
        """(uint8[1797, 8, 8], int[1797]); kept, since scikit-learn parses a text file every time."""
        if "_loaded" not in self.__dict__:
            from sklearn.datasets import load_digits

            bunch = load_digits()
            self._loaded = np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target
        return self._loaded
