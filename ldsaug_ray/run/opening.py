"""Opening a run directory or a folder of samples: whose it is, what lies there, whether another driver is at work."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pyarrow.fs as pafs

from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.common.storage import Location
from ldsaug_ray.common.storage_errors import clear_errors
from ldsaug_ray.config import Config
from ldsaug_ray.errors import InputError, StorageError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.pipeline import FORMAT, STAGES

_OF_SEARCHES = ("search", "trials", "scorings", "baseline")


def open_run_dir(
    config: Config, *, overwrite: bool = False, create: bool = True, held: ExitStack | None = None
) -> RunDir:
    """Open the run directory of a config.

    Args:
        overwrite: discard a run on other data.
        create: write to it: the settings at least.
        held: keeps other drivers out until it is closed.

    Raises:
        StorageError: it cannot be read or written, holds something else than a run, or another driver is at work on it.
        InputError: it holds a run on other data (`overwrite` starts anew), or it and the data lie in one another.
    """
    root = Location.of(config.run_dir)
    _check_ours("run_dir", root)
    _check_apart("run_dir", config.data.source, root)
    if create and held is not None:
        held.enter_context(sole_driver("run_dir", root))
    run = RunDir(root)
    before = run.saved_config()
    if before is not None:
        folders = {folder.split("/")[0] for s in STAGES.values() for folder in s.writes}
        old, new = before["data"].get("source"), without_password(config.data.source)
        holds_results = run.manifest["stages"] or folders & set(root.names())
        other = _place(old) != _place(new)
        if other and holds_results and not overwrite:
            raise InputError(
                f"run_dir {root.uri} was written by a config with data.source={old}, this one has data.source={new}; "
                "choose another run_dir, or pass --overwrite to discard what is there"
            )
        if other and create:
            for stage in reversed(STAGES):
                run.reset(stage)
            for folder in _OF_SEARCHES:
                (root / folder).delete()
            run.manifest = {"format": FORMAT, "stages": {}}
            run._write_manifest()
    if create:
        run.create()
        run.save_config(config)
    return run


def open_sample_dir(config: Config, *, create: bool = True, held: ExitStack | None = None) -> RunDir:
    """Open the folder that `sample` writes to: a manifest, markers and images, as in a run directory.

    Raises:
        StorageError: it cannot be read or written, holds something else, or another driver is at work on it.
        InputError: it and the data lie in one another, or it is the run directory or one of its stages' folders.
    """
    run_dir = Location.of(config.run_dir)
    root = run_dir / "samples" if config.sample.out is None else Location.of(config.sample.out)
    _check_ours("sample.out", root)
    _check_apart("sample.out", config.data.source, root)
    inside, below = (f"{os.path.realpath(x.path) if x.is_local else x.path}/" for x in (root, run_dir))
    if type(root.fs) is type(run_dir.fs) and inside.startswith(below):
        first = inside[len(below) :].split("/")[0]
        stages = {folder.split("/")[0] for s in STAGES.values() for folder in s.writes}
        if first in {"", "_progress", *stages}:
            raise InputError(f"sample.out {root.uri}: belongs to the run itself; choose another folder")
    run = RunDir(root)
    if set(run.manifest["stages"]) - {"sample"} or (root / "config.yaml").exists():
        raise InputError(f"sample.out {root.uri}: is a run directory; choose another folder")
    if create:
        if held is not None:
            held.enter_context(sole_driver("sample.out", root))
        run = RunDir(root)  # as it is now that no other driver is at work
        run.create()
    return run


def _check_ours(name: str, root: Location) -> None:
    """Raises StorageError where a file is, or what no command of ours wrote."""
    if root.info().type == pafs.FileType.File:
        raise StorageError(f"{name} {root.uri}: is a file; choose a folder")
    if (root / "manifest.json").exists():  # it is written before anything else, so nothing here is ours to delete
        return
    odd = [n for n in root.names() if not n.startswith(".")]
    if {"_progress", "config.yaml"} <= set(odd):
        raise StorageError(
            f"{name} {root.uri}: a run's files without its manifest.json; put that back, or choose another folder"
        )
    if odd:
        raise StorageError(
            f"{name} {root.uri}: holds files that no run wrote ({', '.join(odd[:3])}"
            f"{', …' if len(odd) > 3 else ''}); choose an empty or a new folder"
        )


@contextmanager
def sole_driver(name: str, root: Location) -> Iterator[None]:
    """Two drivers at once would delete each other's files. Only a local file system can tell; its lock dies with us.

    Raises:
        StorageError: another process holds the folder, which the setting `name` gives.
    """
    if not root.is_local:
        yield
        return
    root.make_folder()
    with clear_errors("write", root.uri):
        file = open(f"{root.path}/.lock", "a+")  # noqa: SIM115  (open until the driver ends)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StorageError(
                f"{name} {root.uri}: another command is at work in it ({file.read().strip() or 'not known which'}); "
                "wait for it, stop it, or choose another folder"
            ) from None
        except OSError:
            pass  # a network file system without locks
        with clear_errors("write", root.uri):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield


def driver_at_work(root: Location) -> str | None:
    """The process that holds a run directory, in words; none where there is none, or the file system cannot tell."""
    lock = root / ".lock"
    if not root.is_local or not lock.exists():
        return None
    with clear_errors("read", lock.uri), open(lock.path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "a process"
        except OSError:
            return None
    return None


def _place(source: str) -> str:
    """One spelling of a local path, so that `./faces` and `faces` are the same data."""
    return source if "://" in source or source.startswith("sklearn:") else os.path.abspath(os.path.expanduser(source))


def _check_apart(name: str, source: str, root: Location) -> None:
    """A stage that is recomputed deletes its folder, and what a run writes must not count as its input.

    Raises:
        InputError: one lies in the other.
    """
    if source.startswith("sklearn:"):
        return
    images = Location.of(source)
    a, b = (f"{os.path.realpath(x.path) if x.is_local else x.path}/" for x in (images, root))
    if type(images.fs) is type(root.fs) and (a.startswith(b) or b.startswith(a)):
        raise InputError(f"data.source {source} and {name} {root.uri} lie in one another; choose another {name}")
