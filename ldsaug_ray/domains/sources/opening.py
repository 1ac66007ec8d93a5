"""Opening a source: what lies at data.source decides which kind it is, before any image is read."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow.fs as pafs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.sources.folder import FolderSource
from ldsaug_ray.domains.sources.parquet import ParquetSource
from ldsaug_ray.domains.sources.walk import IMAGES, Entry, Files, counted, ending, endings, kind_of, walk
from ldsaug_ray.domains.sources.webdataset import WebDatasetSource
from ldsaug_ray.errors import InputError

_ARCHIVES = ("zip", "7z", "rar", "lzma", "lz", "lz4", "z", "br")
_FORMATS = {"parquet": "Parquet", "webdataset": "tar"}  # what a format's files are called


def open_source(data: CommonData, of: Files = IMAGES) -> Source:
    """What lies at data.source; see `Data` for the formats. Listing and reading are the source's own.

    data.source may be a folder, a Parquet or tar file, or, in its last part, a pattern of file
    names: `*`, `?`, or a range as WebDataset writes it, `train-{000..127}.tar`.

    Raises:
        InputError: nothing is there, it holds no such files, it could be read in two ways, or it does not have a column
            or attribute that the settings name.
        StorageError: it cannot be looked at, or no library opens this kind of URI.
    """
    root, found, left_out = find_files(data.source, of)
    kind = data.format if data.format != "auto" else _judge(data.source, found, left_out, of)
    one_file = [f.name for f in found] == [""]
    if one_file and kind == "folder":
        raise InputError(f"data.source = {data.source} is one file; data.format=folder needs the folder it lies in")
    # In a folder, what the format does not read is left alone; one file is taken at its word, whatever its name.
    files = found if one_file else [f for f in found if kind_of(f.name, of) == kind]
    if not files:
        raise InputError(f"data.source = {data.source}, data.format = {kind}: {_summary(found, left_out, kind, of)}")
    if data.member is not None and kind != "webdataset":
        raise InputError(f"data.member = {data.member}: only tars have members; {data.source} is read as {kind}")
    if data.shard_in_key and kind == "folder":
        raise InputError(f"data.shard_in_key: the keys of {of.item} files are their paths already; leave it out")
    if data.attributes == "columns" and kind == "folder":
        raise InputError(
            f"data.attributes = columns: {of.item} files have no columns; set it to a file in CelebA's "
            "layout, or to null"
        )
    others = endings(f.name for f in found if kind_of(f.name, of) != kind) if not one_file else Counter()
    passed_over = dict([*others.most_common(), *left_out.most_common()])
    if kind == "folder":
        return FolderSource(root, files, passed_over, of)
    reads = ParquetSource if kind == "parquet" else WebDatasetSource
    return reads(root, [f.name for f in files], data, passed_over, of)


def find_files(source: str, of: Files = IMAGES) -> tuple[Location, list[Entry], Counter[str]]:
    """(root, its files, what was left out -> how often); the one file's name is "" where root is a file.

    Raises:
        InputError: nothing is there, or a name is not UTF-8.
        StorageError: it cannot be looked at.
    """
    folder, slash, pattern = source.rstrip("/").rpartition("/")
    if any(c in pattern for c in "*?{"):
        parent = Location.of(folder or slash or ".")
        if not (parent / pattern).exists():  # a folder may well be called "a{1}"
            return parent, *_matching(source, parent, pattern, of)
    root = Location.of(source)
    info = root.info()
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"data.source = {source}: {root.absence}")
    if info.type == pafs.FileType.Directory:
        return root, *walk(root, files=of)
    if info.type != pafs.FileType.File:
        raise InputError(f"data.source = {source}: neither a file nor a folder, but a pipe, socket or device")
    time = info.mtime_ns or root.hashes().get(info.path)
    return root, [Entry("", info.size if info.size is not None else -1, time)], Counter()


def _matching(source: str, parent: Location, pattern: str, of: Files) -> tuple[list[Entry], Counter[str]]:
    missing = _expand(pattern)
    patterns = tuple(missing)

    def matches(name: str) -> bool:
        hits = [one for one in patterns if fnmatch.fnmatchcase(name, one)]
        missing[:] = [one for one in missing if one not in hits]
        return bool(hits)

    if not parent.exists():
        raise InputError(f"data.source = {source}: {parent.uri}: {parent.absence}")
    found = walk(parent, matches, of)
    if missing:
        raise InputError(f"data.source = {source}: there is no file {missing[0]!r}")
    return found


def _expand(pattern: str) -> list[str]:
    """`a{08..10}b` and `a{x,y}b` written out."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not found:
        return [pattern]
    first, last, words = found.groups()
    values = words.split(",") if words else [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [one for value in values for one in _expand(before + value + after)]


def _judge(source: str, files: Sequence[Entry], left_out: Mapping[str, int], of: Files) -> str:
    if [f.name for f in files] == [""]:
        kind = kind_of(source, of)
        if kind in ("parquet", "webdataset"):
            return kind
        if ending(source) in _ARCHIVES:
            raise InputError(
                f"data.source = {source}: .{ending(source)} is not read; unpack it, or write a tar, plain or "
                "compressed by gzip, bzip2, xz or zstd"
            )
        known = f"none of .{', .'.join(of.extensions)}, .parquet" if of.text else "neither .parquet nor .tar"
        folder = "" if of.text else f"give a folder of {of.unit}, or "
        raise InputError(f"data.source = {source} is one file and {known}; {folder}set data.format")
    named = Counter(ending(f.name) for f in files if kind_of(f.name, of))
    # Archives beside images are mostly where the images came from: they decide only where nothing else does.
    sure = {*of.extensions, "parquet", "tar"}
    kinds = Counter[str]()
    for end, n in named.items():
        if end in sure or not sure & set(named):
            kinds[kind_of(f".{end}", of) or ""] += n
    if len(kinds) == 1:
        return next(iter(kinds))
    if not kinds:
        raise InputError(f"data.source = {source}: {_summary(files, left_out, 'folder', of)}")
    found = ", ".join(f"{n} {_FORMATS.get(k, of.item)} file{'s' * (n > 1)}" for k, n in kinds.most_common())
    raise InputError(f"data.source = {source} holds {found}: set data.format to {' or '.join(sorted(kinds))}")


def _summary(files: Sequence[Entry], left_out: Mapping[str, int], kind: str, of: Files) -> str:
    """ "3 files (.txt ×2, .csv ×1), none of .jpg, .png"."""
    apart = f"; left out: {counted(left_out)}" if left_out else ""
    if not files:
        return f"the folder is empty{apart}"
    found = endings(f.name for f in files)
    listed = ", ".join(f"{e} ×{n}" for e, n in found.most_common(8)) + (", …" if len(found) > 8 else "")
    what = {"parquet": ["parquet"], "webdataset": ["tar"]}.get(kind, of.extensions)
    return f"{len(files)} file{'s' * (len(files) > 1)} ({listed}), none of .{', .'.join(what)}{apart}"
