"""A folder of files that are an item each, at any depth. The key is the path relative to the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.sources.base import Reading, Source, ahead, listing, locate, read_or_reason
from ldsaug_ray.domains.sources.walk import IMAGES, Entry, Files, kind_of, walk


class FolderSource(Source):
    """Files of one kind below `root`."""

    def __init__(
        self, root: Location, files: Sequence[Entry], passed_over: Mapping[str, int], of: Files = IMAGES
    ) -> None:
        """`files`: sorted; not pickled with the source, workers have no use for them."""
        self.uri = root.uri
        self.root, self.of = root, of
        self.passed_over = passed_over
        self._files = tuple(files)

    def list(self) -> pa.Table:
        """See `Source.list`; one row per file, index 0."""
        if "_files" not in self.__dict__:
            self._files = tuple(f for f in walk(self.root, files=self.of)[0] if kind_of(f.name, self.of) == "folder")
        names = [f.name for f in self._files]
        return listing(names, names, [0] * len(names), [f.size for f in self._files])

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`."""
        places = (locate(self.root, file) for file in records["file"].to_pylist())
        for payload, reason in ahead(read_or_reason, places, remote=not self.root.is_local):
            yield payload, reason, None
