"""What identifies a source without reading it: names, sizes and times of its files."""

from __future__ import annotations

import pyarrow.fs as pafs

from ldsaug_ray.config.settings import Data
from ldsaug_ray.digest import fingerprint
from ldsaug_ray.storage import Location


def source_stamp(data: Data) -> str:
    """SHA-256 over (path, size, time) of every file of the source and of the attribute file; '' for built-in digits."""
    names = [data.source] if data.source != "sklearn:digits" else []
    if data.attributes not in (None, "columns"):
        names.append(str(data.attributes))
    files: list[tuple[str, int | None, int | None]] = []
    for name in names:
        location = Location.of(name)
        info = location.info()
        infos = [info]
        if info.type == pafs.FileType.Directory:
            infos = location.fs.get_file_info(pafs.FileSelector(location.path, recursive=True))
        skip = len(location.path)
        files += sorted((i.path[skip:], i.size, i.mtime_ns) for i in infos if i.type == pafs.FileType.File)
    return fingerprint(files) if files else ""
