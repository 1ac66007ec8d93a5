"""What identifies a source without reading it: names, sizes and times of the files that it lists."""

from __future__ import annotations

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.sources.opening import find_files
from ldsaug_ray.domains.sources.walk import IMAGES, Entry, Files


def source_stamp(data: CommonData, of: Files = IMAGES) -> str:
    """SHA-256 over (path, size, time) of every file of the source and of the attribute file; '' for built-in data.

    What the sources leave out by its name is left out.

    Raises:
        InputError: nothing is there.
        StorageError: it cannot be looked at.
    """
    stamps = [] if data.source.startswith("sklearn:") else [_stamps(find_files(data.source, of)[1])]
    if data.attributes not in (None, "columns"):
        info = Location.of(data.attributes).info()
        stamps.append(_stamps([Entry("", info.size, info.mtime_ns)]))
    return fingerprint(stamps) if stamps else ""


def _stamps(files: list[Entry]) -> list[Entry]:
    return [f for f in files if f.size != -1]  # a link that leads nowhere
