"""Opening a source: what lies at data.source decides which kind it is, before any image is read."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Sequence

import pyarrow.fs as pafs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Data
from ldsaug_ray.domains.images.base import IMAGE_EXTENSIONS, Source, extension, walk
from ldsaug_ray.domains.images.digits import DigitsSource
from ldsaug_ray.domains.images.folder import FolderSource
from ldsaug_ray.domains.images.parquet import ParquetSource
from ldsaug_ray.domains.images.webdataset import WebDatasetSource
from ldsaug_ray.errors import InputError

_KINDS = {**dict.fromkeys(IMAGE_EXTENSIONS, "folder"), "parquet": "parquet", "tar": "webdataset"}
_FILES = {"folder": "image", "parquet": "Parquet", "webdataset": "tar"}  # what a format's files are called


def open_source(data: Data) -> Source:
    """The images at data.source; see `Data` for the formats. Listing and reading are the source's own.

    data.source may be a folder, a Parquet or tar file, `sklearn:digits`, or, in its last part, a pattern of file
    names: `*`, `?`, or a range as WebDataset writes it, `train-{000..127}.tar`.

    Raises:
        InputError: nothing is there, it holds no images, it could be read in two ways, or it does not have a column
            or attribute that the settings name.
        StorageError: it cannot be looked at, or no library opens this kind of URI.
    """
    if data.format == "digits" or data.source.startswith("sklearn:"):
        if data.source != "sklearn:digits" or data.format not in ("auto", "digits"):
            raise InputError(
                f"data.source = {data.source}, data.format = {data.format}: the built-in source is sklearn:digits, "
                "with data.format auto or digits"
            )
        return DigitsSource(data.attributes == "columns", data.attribute_names)
    root, found = find_files(data.source)
    kind = data.format if data.format != "auto" else _judge(data.source, found)
    one_file = [name for name, _ in found] == [""]
    if one_file and kind == "folder":
        raise InputError(f"data.source = {data.source} is one file; data.format=folder needs the folder it lies in")
    # In a folder, what the format does not read is left alone; one file is taken at its word, whatever its name.
    files = found if one_file else [f for f in found if _KINDS.get(extension(f[0])) == kind]
    if not files:
        raise InputError(f"data.source = {data.source}, data.format = {kind}: {_summary(found, kind)}")
    names = [name for name, _ in files]
    if kind == "parquet":
        return ParquetSource(root, names, data)
    if data.attributes == "columns" and kind == "folder":
        raise InputError(
            "data.attributes = columns: image files have no columns; set it to a file in CelebA's layout, or to null"
        )
    if kind == "webdataset":
        return WebDatasetSource(root, names, data)
    source = FolderSource(root, files)
    known = set(names)
    source.passed_over = dict(Counter(_ending(name) for name, _ in found if name not in known).most_common())
    return source


def find_files(source: str) -> tuple[Location, list[tuple[str, int]]]:
    """(root, [(relative path, bytes)]); the one path is "" where root is a file."""
    folder, slash, pattern = source.rstrip("/").rpartition("/")
    if any(c in pattern for c in "*?{"):
        parent = Location.of(folder or slash or ".")
        if not (parent / pattern).exists():  # a folder may well be called "a{1}"
            there = walk(parent) if parent.exists() else []
            return parent, _match(source, pattern, [f for f in there if "/" not in f[0]])
    root = Location.of(source)
    info = root.info()
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"data.source = {source}: there is no such file or folder")
    if info.type == pafs.FileType.Directory:
        return root, walk(root)
    return root, [("", info.size if info.size is not None else -1)]


def _match(source: str, pattern: str, there: list[tuple[str, int]]) -> list[tuple[str, int]]:
    sizes = dict(there)
    chosen: set[str] = set()
    for one in _expand(pattern):
        matches = [name for name in sizes if fnmatch.fnmatchcase(name, one)]
        if not matches:
            raise InputError(f"data.source = {source}: there is no file {one!r}")
        chosen.update(matches)
    return sorted((name, sizes[name]) for name in chosen)


def _expand(pattern: str) -> list[str]:
    """`a{08..10}b` and `a{x,y}b` written out."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not found:
        return [pattern]
    first, last, words = found.groups()
    values = words.split(",") if words else [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [one for value in values for one in _expand(before + value + after)]


def _judge(source: str, files: Sequence[tuple[str, int]]) -> str:
    if [name for name, _ in files] == [""]:
        kind = _KINDS.get(extension(source))
        if kind in ("parquet", "webdataset"):
            return kind
        raise InputError(
            f"data.source = {source} is one file and neither .parquet nor .tar; give a folder of images, or set "
            "data.format"
        )
    kinds = Counter(_KINDS[extension(name)] for name, _ in files if extension(name) in _KINDS)
    if len(kinds) == 1:
        return next(iter(kinds))
    if not kinds:
        raise InputError(f"data.source = {source}: {_summary(files, 'folder')}")
    found = ", ".join(f"{n} {_FILES[k]} file{'s' * (n > 1)}" for k, n in kinds.most_common())
    raise InputError(f"data.source = {source} holds {found}: set data.format to {' or '.join(sorted(kinds))}")


def _summary(files: Sequence[tuple[str, int]], kind: str) -> str:
    """ "3 files, none with an image extension (.txt ×2, .csv ×1)"."""
    if not files:
        return "the folder is empty"
    endings = Counter(_ending(name) for name, _ in files)
    listed = ", ".join(f"{e} ×{n}" for e, n in endings.most_common(8)) + (", …" if len(endings) > 8 else "")
    what = {"folder": "an image extension", "parquet": "the extension .parquet", "webdataset": "the extension .tar"}
    return f"{len(files)} file{'s' * (len(files) > 1)}, none with {what[kind]} ({listed})"


def _ending(name: str) -> str:
    return f".{extension(name)}" if extension(name) else "no extension"
