"""A folder of image files, at any depth. The key is the path relative to the folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.images.base import (
    IMAGE_EXTENSIONS,
    Reading,
    Source,
    ahead,
    extension,
    listing,
    locate,
    read_or_reason,
    walk,
)


class FolderSource(Source):
    """Image files below `root`."""

    def __init__(self, root: Location, files: Sequence[tuple[str, int]]) -> None:
        """`files`: (relative path, bytes), sorted; not pickled with the source, workers have no use for it."""
        self.uri = root.uri
        self.root = root
        self._files = tuple(files)

    def list(self) -> pa.Table:
        """See `Source.list`; one row per file, index 0."""
        if "_files" not in self.__dict__:
            self._files = tuple(f for f in walk(self.root) if extension(f[0]) in IMAGE_EXTENSIONS)
        names = [name for name, _ in self._files]
        return listing(names, names, [0] * len(names), [size for _, size in self._files])

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`."""
        places = (locate(self.root, file) for file in records["file"].to_pylist())
        for payload, reason in ahead(read_or_reason, places, remote=not self.root.is_local):
            yield payload, reason, None
