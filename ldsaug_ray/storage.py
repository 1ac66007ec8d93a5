"""Files in a run directory or a dataset, local or remote, through one small class over `pyarrow.fs`.

A `Location` is a filesystem and a path. It pickles, so Ray workers use the same object. Writing is atomic: a reader
sees the whole file or none.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ldsaug_ray.errors import StorageError


@dataclass(frozen=True)
class Location:
    """A file or folder: `fs` opens it at `path`; `uri` is what the user wrote, for messages."""

    fs: pafs.FileSystem
    path: str
    uri: str

    @classmethod
    def of(cls, uri: str | os.PathLike[str]) -> Location:
        """Resolve a local path or URI; `pyarrow.fs` knows file, s3, gs, hdfs, and fsspec the rest.

        Raises:
            StorageError: no installed library opens this kind of URI.
        """
        uri = os.fspath(uri)
        if "://" not in uri:
            return cls(pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute()), uri)
        try:
            fs, path = pafs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
            fs, path = _from_fsspec(uri)
        return cls(fs, path.rstrip("/") or path, uri)

    def __truediv__(self, name: str) -> Location:
        return Location(self.fs, f"{self.path.rstrip('/')}/{name}", f"{self.uri.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        """Whether the path is on this machine's own file system."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def info(self) -> pafs.FileInfo:
        """Type, size and time; the type is NotFound where there is nothing."""
        with _clear_errors("look at", self):
            return self.fs.get_file_info(self.path)

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return self.info().type != pafs.FileType.NotFound

    def files(self, suffix: str = "", *, recursive: bool = True) -> list[Location]:
        """Files below this folder whose name ends in `suffix`, sorted by path; none where there is no folder."""
        with _clear_errors("list", self):
            selector = pafs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
            infos = self.fs.get_file_info(selector)
        skip = len(self.path.rstrip("/")) + 1
        paths = sorted(i.path for i in infos if i.type == pafs.FileType.File and i.path.endswith(suffix))
        return [self / p[skip:] for p in paths]

    def read_bytes(self) -> bytes:
        """The whole file."""
        with _clear_errors("read", self), self.fs.open_input_file(self.path) as f:
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
        """One Parquet file."""
        with _clear_errors("read", self):
            return pq.ParquetFile(self.fs.open_input_file(self.path)).read(columns=columns)

    def write_bytes(self, data: bytes) -> None:
        """Replace the file, atomically."""
        with self._replacing() as path, self.fs.open_output_stream(path) as f:
            f.write(data)

    def write_json(self, value: Any) -> None:
        """Replace the file by indented JSON, atomically."""
        self.write_bytes((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_table(self, table: pa.Table, **options: Any) -> None:
        """Replace the file by Parquet (zstd), atomically."""
        with self._replacing() as path:
            pq.write_table(table, path, filesystem=self.fs, compression="zstd", compression_level=1, **options)

    def make_folder(self) -> None:
        """Create this folder and its parents."""
        with _clear_errors("create", self):
            self.fs.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Delete this file or folder, if there is one."""
        with _clear_errors("delete", self):
            kind = self.fs.get_file_info(self.path).type
            if kind == pafs.FileType.Directory:
                self.fs.delete_dir(self.path)
            elif kind == pafs.FileType.File:
                self.fs.delete_file(self.path)

    @contextmanager
    def _replacing(self) -> Iterator[str]:
        """A path to write to that becomes this file once the block succeeds."""
        with _clear_errors("write", self):
            if not self.is_local:  # object stores publish a file when its stream closes
                yield self.path
                return
            folder, _, name = self.path.rpartition("/")
            self.fs.create_dir(folder or "/", recursive=True)
            temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                yield temporary
                os.replace(temporary, self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise


def _from_fsspec(uri: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    scheme = uri.split("://", 1)[0]
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except ImportError as e:
        raise StorageError(f"{uri}: reading {scheme}:// needs another package: {e}") from None
    except ValueError as e:
        raise StorageError(f"{uri}: neither pyarrow nor fsspec knows this kind of address: {e}") from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path


_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again, finished parts are kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again, finished parts are kept",
    errno.EACCES: "permission denied; check the owner and rights, or choose another run_dir",
    errno.EPERM: "operation not permitted; check the owner and rights, or choose another run_dir",
    errno.EROFS: "the file system is read-only; choose another run_dir",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENOENT: "no such file or folder",
}


@contextmanager
def _clear_errors(verb: str, location: Location) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        advice = _ADVICE.get(e.errno or 0, str(e).splitlines()[0])
        raise StorageError(f"cannot {verb} {location.uri}: {advice}") from e
    except pa.ArrowInvalid as e:
        raise StorageError(f"cannot {verb} {location.uri}: not a readable Parquet file ({str(e).splitlines()[0]})") from e
