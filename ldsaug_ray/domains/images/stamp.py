"""What identifies a source without reading it: names, sizes and times of the files that it lists."""

from __future__ import annotations

import pyarrow.fs as pafs

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Data
from ldsaug_ray.domains.images.sources import find_files


def source_stamp(data: Data) -> str:
    """SHA-256 over (path, size, time) of every file of the source and of the attribute file; '' for built-in digits.

    Names that begin with a dot are left out, as the sources do.

    Raises:
        InputError: nothing is there.
        StorageError: it cannot be looked at.
    """
    stamps = [] if data.source.startswith("sklearn:") else [_stamps(*find_files(data.source))]
    if data.attributes not in (None, "columns"):
        stamps.append(_stamps(Location.of(data.attributes), [("", -1)]))
    return fingerprint(stamps) if stamps else ""


def _stamps(root: Location, found: list[tuple[str, int]]) -> list[tuple[str, int | None, int | None]]:
    names = {name for name, _ in found}
    infos = [root.info()]
    if infos[0].type == pafs.FileType.Directory:
        below = pafs.FileSelector(root.path, recursive=any("/" in name for name in names))
        infos = root.fs.get_file_info(below)
    stamps = ((i.path[len(root.path) :].lstrip("/"), i.size, i.mtime_ns) for i in infos)
    return sorted(s for s in stamps if s[0] in names)
