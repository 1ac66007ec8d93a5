"""Walking a source's folder: every file once, in the order of the paths, and a count of whatever is left out.

A local tree is walked here and not by Arrow, which follows links in circles, passes over dead ones, and cannot be
interrupted. Stores without links are listed by Arrow and judged by the same names.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError, StorageError


class Files(NamedTuple):
    """What a source's files are: what one and many are called, their endings, the setting that names the column of
    Parquet files which holds them, and whether this may be text."""

    item: str
    unit: str
    extensions: tuple[str, ...]
    setting: str
    text: bool = False

    @property
    def an(self) -> str:
        """With its article."""
        return f"{'an' if self.item[0] in 'aeio' else 'a'} {self.item}"

    def column(self, data: Any) -> str:
        """The column that the settings name."""
        name: str = getattr(data, self.setting)
        return name


IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
TAR_ENDINGS = ("tar", "tar.gz", "tgz", "tar.bz2", "tbz", "tbz2", "tar.xz", "txz", "tar.zst", "tzst")
IMAGES = Files("image", "images", IMAGE_EXTENSIONS, "image_column")
_KINDS = {  # ending -> format, of files that hold many items
    **dict.fromkeys(("parquet", "parq", "pq"), "parquet"),
    **dict.fromkeys(TAR_ENDINGS, "webdataset"),
}

_SIDECARS = {  # folders that storage systems, operating systems and Spark keep beside the data, in lower case
    "@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "__macosx",
    "$recycle.bin", "recycler", "system volume information", "network trash folder", "temporary items",
    "_temporary", "_delta_log", "_spark_metadata", "~snapshot", "@snapshot", "recycled", "_vti_cnf", "resource.frk",
    "@__qini", "@synoresource", "@upload_cache", "@appstore", "@database",
}  # fmt: skip
_FOUND = re.compile(r"found\.\d{3}")  # what chkdsk saves into
_THUMBNAIL = re.compile(r"~\$|SYNO(FILE|PHOTO|VIDEO)_THUMB")

Only = Callable[[str], bool]

HIDDEN = "hidden (the name begins with a dot)"
BESIDE = "files that programs leave beside others (~$…, SYNOFILE_THUMB…)"
SPECIAL = "pipes, sockets or devices"
LINKED_FILE = "further names of files already listed"
LINKED_FOLDER = "links to folders already listed"
_OF_ANY_KIND = (HIDDEN, BESIDE)  # files as well as folders
FOLDER = "folders (a pattern stands for files)"


class Entry(NamedTuple):
    """A file below a folder."""

    name: str  # relative path; "" where the source is the one file
    size: int  # bytes, -1 where not known
    time: int | str | None  # of the last change, ns since 1970; the content's hash where a store gives only that


def walk(folder: Location, only: Only | None = None, files: Files = IMAGES) -> tuple[list[Entry], Counter[str]]:
    """(every file below a folder, sorted by path; what was left out -> how often).

    Left out and counted: names that begin with a dot and the sidecar folders of storage systems, at every level and
    without looking into them; pipes, sockets and devices; links to what is listed already. A link that leads nowhere
    is listed (size -1), so that it is reported and not lost. Of several names of one file the first real one counts.

    Args:
        only: no folder below is looked into, and of what lies here, what this function of the name says.

    Raises:
        StorageError: a folder cannot be listed.
        InputError: a name is not UTF-8.
    """
    left_out: Counter[str] = Counter()
    if isinstance(folder.fs, pafs.LocalFileSystem):
        found = list(_once(_walk_local(folder.path, left_out, only), left_out, files))
    else:
        found = _walk_remote(folder, left_out, only)
    return sorted(found), left_out


def kind_of(name: str, files: Files = IMAGES) -> str | None:
    """The format that reads a file of this name: folder (an item), parquet, webdataset; None for none."""
    found = ending(name)
    return "folder" if found in files.extensions else _KINDS.get(found)


def extension(name: str) -> str:
    """The lower-case extension of a path without its dot, "" where there is none."""
    _, dot, last = name.rsplit("/", 1)[-1].rpartition(".")
    return last.lower() if dot else ""


def ending(name: str) -> str:
    """`extension`, or both of `.tar.gz` and its like."""
    two = ".".join(name.rsplit("/", 1)[-1].lower().rsplit(".", 2)[1:])
    return two if two in TAR_ENDINGS else extension(name)


def endings(names: Iterable[str]) -> Counter[str]:
    """How many of the names have each ending, as they are told: `.txt`, `no extension`."""
    return Counter(f".{ending(name)}" if ending(name) else "no extension" for name in names)


def counted(found: Mapping[str, int]) -> str:
    """ "2 .txt, 1 no extension", as it is told wherever something is passed over."""
    return ", ".join(f"{n} {what}" for what, n in found.items())


def left_out_as(name: str) -> str | None:
    """What a file or folder with this last part of its path is left out as; None where it is not."""
    if name.startswith(".") and name not in (".", ".."):
        return HIDDEN
    if _THUMBNAIL.match(name):
        return BESIDE
    return f"folders {name}" if name.lower() in _SIDECARS or _FOUND.fullmatch(name.lower()) else None


def left_out_of_path(path: str) -> tuple[str, str] | None:
    """(what it is left out as, the part of the path that decides) for a path whose folders are to be judged too."""
    parts = path.split("/")
    for n, part in enumerate(parts, 1):
        why = left_out_as(part)
        if why is not None and (n < len(parts) or why in _OF_ANY_KIND):
            return why, "/".join(parts[:n])
    return None


class _Seen(NamedTuple):
    entry: Entry
    file: int | None  # device and inode; None where the file system has none
    link: bool


def _identity(info: os.stat_result) -> int | None:
    return info.st_dev << 64 | info.st_ino if info.st_ino else None


def _walk_local(root: str, left_out: Counter[str], only: Only | None) -> Iterator[_Seen]:
    """Real folders first, then what links lead to: so a folder is listed under its own path, wherever links stand."""
    entered: set[int] = set()
    todo = [(root, "")]
    links: list[tuple[str, str]] = []
    while todo or links:
        if not todo:
            links.sort(reverse=True)
            todo.append(links.pop())
        path, name = todo.pop()
        try:
            identity = _identity(os.stat(path))
            if identity is not None and identity in entered:
                left_out[LINKED_FOLDER] += 1
                continue
            if identity is not None:
                entered.add(identity)
            with os.scandir(path) as listed:
                children = list(listed)
        except OSError as e:
            raise StorageError(f"cannot list {path}: {e.strerror or e}") from e
        for child in children:
            if only is not None and not only(child.name):
                continue
            try:
                child.name.encode()
            except UnicodeEncodeError:
                raise InputError(
                    f"the name of {os.fsencode(child.path)!r} is not UTF-8; keys are text, so rename or remove it"
                ) from None
            below = f"{name}/{child.name}" if name else child.name
            why = left_out_as(child.name)
            if why in _OF_ANY_KIND:
                left_out[why] += 1
                continue
            try:
                info = child.stat()
            except OSError:  # gone, or a link that leads nowhere or in a circle
                yield _Seen(Entry(below, -1, None), None, child.is_symlink())
                continue
            if why is not None and stat.S_ISDIR(info.st_mode):
                left_out[why] += 1
            elif stat.S_ISDIR(info.st_mode):
                if only is not None:
                    left_out[FOLDER] += 1
                else:
                    (links if child.is_symlink() else todo).append((child.path, below))
            elif stat.S_ISREG(info.st_mode):
                # scandir's own inode is the link's
                yield _Seen(Entry(below, info.st_size, info.st_mtime_ns), _identity(info), child.is_symlink())
            else:
                left_out[SPECIAL] += 1


def _once(found: Iterable[_Seen], left_out: Counter[str], files: Files) -> Iterator[Entry]:
    """Each file that some source could read under one name: its first that is no link, else its first."""
    read: set[int] = set()
    for seen in sorted(found, key=lambda s: (s.link, s.entry.name)):
        if seen.file is not None and kind_of(seen.entry.name, files) is not None:
            if seen.file in read:
                left_out[LINKED_FILE] += 1
                continue
            read.add(seen.file)
        yield seen.entry


def _walk_remote(folder: Location, left_out: Counter[str], only: Only | None) -> list[Entry]:
    try:
        infos = folder.fs.get_file_info(pafs.FileSelector(folder.path, recursive=only is None))
    except OSError as e:
        raise StorageError(f"cannot list {folder.uri}: {str(e).splitlines()[0]}") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{folder.uri}: a name below it is not UTF-8; keys are text, so rename or remove it") from e
    skip, hashes = len(folder.path.rstrip("/")) + 1, folder.hashes()
    found: list[Entry] = []
    apart: set[tuple[str, str]] = set()
    for info in infos:
        name = info.path[skip:]
        if only is not None and not only(name):
            continue
        why = left_out_of_path(name)
        if why is not None:
            apart.add(why)
        elif info.type != pafs.FileType.Directory:
            time = info.mtime_ns or hashes.get(info.path)
            found.append(Entry(name, -1 if info.size is None else info.size, time))
        elif only is not None:
            left_out[FOLDER] += 1
    left_out.update(why for why, _ in apart)
    return found
