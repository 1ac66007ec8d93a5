"""Files in a run directory or a dataset, local or remote, through one small class over `pyarrow.fs`.

A `Location` is a filesystem and a path. It pickles, so Ray workers use the same object. Writing is atomic: a reader
sees the whole file or none.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.common.storage_errors import clear_errors, first_words
from ldsaug_ray.errors import StorageError


@dataclass(frozen=True)
class Location:
    """A file or folder: `fs` opens it at `path`; `uri` is what the user wrote, for messages."""

    fs: pafs.FileSystem
    path: str
    uri: str

    @classmethod
    def of(cls, uri: Place) -> Location:
        """Resolve a path or URI; `pyarrow.fs` knows s3, gs, hdfs, fsspec the rest, huggingface_hub hf.

        A path is taken literally. In a URI that pyarrow opens, %20 means a space; `#` is an error: it cuts the path.

        Raises:
            StorageError: no installed library opens this kind of URI, or it is no path at all.
        """
        if isinstance(uri, Location):
            return uri
        if not isinstance(uri, str | os.PathLike):
            raise StorageError(f"a path or URI is text or a Path; found {type(uri).__name__}")
        uri = os.fspath(uri)
        scheme, marked, rest = uri.partition("://")
        if not marked:
            return cls(pafs.LocalFileSystem(), _absolute(uri, uri), uri)
        if not scheme:
            raise StorageError(f"{uri}: not an address; a URI begins with its kind, such as s3://")
        if "#" in rest:
            raise StorageError(f"{uri}: a # in a URI begins a remark; write %23 where it is part of a name")
        if scheme in ("file", "local"):
            if not rest.startswith("/") or "?" in rest:
                raise StorageError(f"{uri}: write {scheme}:///folder/name (? in a name as %3F), or a plain path")
            return cls(pafs.LocalFileSystem(), _absolute(unquote(rest), uri), uri)
        try:
            fs, path = _from_hub(uri) if scheme == "hf" else pafs.FileSystem.from_uri(quote(uri, safe=_URI_SAFE))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, ImportError):
            fs, path = _from_fsspec(uri)
        except OSError as e:
            raise StorageError(f"cannot reach {uri}: {first_words(e)}") from e
        return cls(fs, path.rstrip("/") or path, uri)

    def __truediv__(self, name: str) -> Location:
        return Location(self.fs, f"{self.path.rstrip('/')}/{name}", f"{self.uri.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder it lies in."""
        return Location(self.fs, self.path.rpartition("/")[0], self.uri.rstrip("/").rpartition("/")[0])

    @property
    def is_local(self) -> bool:
        """Whether the path is on this machine's own file system."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    @property
    def shown(self) -> str:
        """Where a user finds it: a local path, or the whole address."""
        return self.path if self.is_local else without_password(self.uri)

    def info(self) -> pafs.FileInfo:
        """Type, size and time; the type is NotFound where there is nothing."""
        with clear_errors("look at", self.uri):
            return self.fs.get_file_info(self.path)

    @property
    def absence(self) -> str:
        """What to say of it where nothing is there; the Hugging Face Hub knows more than that."""
        with clear_errors("look at", self.uri):
            return str(self._own_words("absence") or "there is no such file or folder")

    def hashes(self) -> dict[str, str]:
        """Path -> hash of each file below, of a store that knows these and no times: the Hugging Face Hub."""
        with clear_errors("list", self.uri):
            return self._own_words("hashes") or {}

    def _own_words(self, name: str) -> Any:
        """What a file system of fsspec's says of the path, where it has a method of that name."""
        own = getattr(self.fs.handler.fs, name, None) if isinstance(self.fs, pafs.PyFileSystem) else None
        return own(self.path) if own else None

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return self.info().type != pafs.FileType.NotFound

    def files(self, suffix: str = "", *, recursive: bool = True) -> list[Location]:
        """Files below this folder whose name ends in `suffix`, sorted by path; none where there is no folder."""
        infos = self._listed(recursive)
        skip = len(self.path.rstrip("/")) + 1
        paths = sorted(i.path for i in infos if i.type == pafs.FileType.File and i.path.endswith(suffix))
        return [self / p[skip:] for p in paths]

    def names(self) -> list[str]:
        """What lies directly in this folder, files and folders, sorted; none where there is no folder."""
        return sorted(i.base_name for i in self._listed(False))

    def _listed(self, recursive: bool) -> list[pafs.FileInfo]:
        with clear_errors("list", self.uri):
            if isinstance(self.fs, pafs.PyFileSystem):  # fsspec may remember lists, but other machines write here too
                self.fs.handler.fs.invalidate_cache()
            selector = pafs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
            try:
                return self.fs.get_file_info(selector)
            except FileNotFoundError:  # a folder went, or came, between being seen and being read
                return self.fs.get_file_info(selector)

    def read_bytes(self) -> bytes:
        """The whole file."""
        with clear_errors("read", self.uri), self.fs.open_input_file(self.path) as f:
            return f.read()

    def read_text(self) -> str:
        """The whole file as UTF-8."""
        try:
            return self.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise StorageError(f"{self.uri}: not a UTF-8 text file ({e.reason} at byte {e.start})") from None

    def read_json(self) -> Any:
        """The file as JSON."""
        try:
            return json.loads(self.read_text())
        except json.JSONDecodeError as e:
            raise StorageError(f"{self.uri}: not valid JSON ({e})") from None

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file, or some of its columns."""
        with clear_errors("read", self.uri), self.fs.open_input_file(self.path) as f:
            try:
                parquet = pq.ParquetFile(f)
                absent = sorted(set(columns or ()) - set(parquet.schema_arrow.names))
                if not absent:
                    return parquet.read(columns=columns)
            except (OSError, pa.ArrowException) as e:
                if isinstance(e, OSError) and e.errno:
                    raise
                raise StorageError(f"cannot read {self.uri}: not a readable Parquet file ({first_words(e)})") from e
        names = ", ".join(parquet.schema_arrow.names)
        raise StorageError(f"{self.uri}: has no column {', '.join(absent)}; it has {names}")

    def write_bytes(self, data: bytes | pa.Buffer) -> None:
        """Replace the file, atomically."""

        def write() -> None:
            with self._replacing() as path, self.fs.open_output_stream(path) as f:
                f.write(data)

        if self.is_local:
            write()
        else:  # An object is replaced when its stream is closed, by Arrow too where a signal ends the writer half-way.
            with ThreadPoolExecutor(1) as thread:  # Signals go to the main thread, which waits for this one
                thread.submit(write).result()

    def write_json(self, value: Any) -> None:
        """Replace the file by indented JSON, atomically."""
        self.write_bytes((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_table(self, table: pa.Table, **options: Any) -> None:
        """Replace the file by Parquet (zstd), atomically."""
        # a dictionary of numbers, hardly two of which are equal, takes thrice as long and is given up at last
        texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
        options = {"compression": "zstd", "compression_level": 1, "use_dictionary": texts, **options}
        if not self.is_local:  # whole before a byte is sent: closing the stream publishes what it has got
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, **options)
            self.write_bytes(sink.getvalue())
            return
        with self._replacing() as path:
            pq.write_table(table, path, filesystem=self.fs, **options)

    def copy_to(self, folder: Location) -> None:
        """Put what lies below this folder below another too: on one local file system the same files under two names.

        No file of ours is changed in place, so that either name can be replaced or deleted without the other.
        """
        skip = len(self.path.rstrip("/")) + 1
        for file in self.files():
            target = folder / file.path[skip:]
            if not (file.is_local and target.is_local and _linked(file.path, target.path)):
                target.write_bytes(file.read_bytes())

    def make_folder(self) -> None:
        """Create this folder and its parents."""
        with clear_errors("create", self.uri):
            self.fs.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Delete this file or folder, if there is one."""
        if self.fs.type_name.startswith("py::") and any(c in self.path for c in "*?["):
            raise StorageError(f"cannot delete {self.uri}: fsspec takes *, ? and [ for a pattern; choose another name")
        with clear_errors("delete", self.uri):
            kind = self.fs.get_file_info(self.path).type
            if kind == pafs.FileType.Directory:
                self.fs.delete_dir(self.path)
            elif kind == pafs.FileType.File:
                self.fs.delete_file(self.path)

    @contextmanager
    def _replacing(self) -> Iterator[str]:
        """A path to write to that becomes this file once the block succeeds."""
        with clear_errors("write", self.uri):
            folder, _, name = self.path.rpartition("/")
            if self.fs.type_name not in _OBJECT_STORES:
                self.fs.create_dir(folder or "/", recursive=True)
            if not self.is_local:  # object stores publish a file when its stream closes
                yield self.path
                return
            temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                yield temporary
                os.replace(temporary, self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise


def _absolute(path: str, uri: str) -> str:
    if not path or "\0" in path:
        raise StorageError(f"{uri!r}: not a path")
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as e:
        raise StorageError(f"{uri}: {e}") from None


def _linked(path: str, target: str) -> bool:
    """Whether a second name could be given to a file; other file systems, and some kinds of them, cannot."""
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(path, target)
    except OSError:
        return False
    return True


def _from_hub(uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        from ldsaug_ray.common.hub import HubFiles
    except ImportError as e:
        raise StorageError(f"{uri}: hf:// needs another package: pip install 'ldsaug_ray[hub]' ({e})") from None
    files = HubFiles()
    files.invalidate_cache()  # it is one for the whole process, and remembers lists
    return pafs.PyFileSystem(pafs.FSSpecHandler(files)), uri.removeprefix("hf://")


def _from_fsspec(uri: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    scheme = uri.split("://", 1)[0]
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except ImportError as e:
        raise StorageError(f"{uri}: reading {scheme}:// needs another package: {e}") from None
    except OSError as e:
        raise StorageError(f"cannot reach {uri}: {first_words(e)}") from e
    except ValueError as e:
        raise StorageError(f"{uri}: neither pyarrow nor fsspec knows this kind of address: {e}") from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path


Place = Location | str | os.PathLike[str]  # what public functions take
_OBJECT_STORES = ("s3", "gcs", "abfs")  # they have no folders to make
_URI_SAFE = "%/:=&?~+!$,;'@()*[]"
