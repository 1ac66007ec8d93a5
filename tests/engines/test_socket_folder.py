"""Ray's folder of sockets where TMPDIR is long, and why a local Ray does not start, told without starting one."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from ldsaug_ray.config.cluster import Ray
from ldsaug_ray.engines.ray import socket_folder
from ldsaug_ray.engines.ray.socket_folder import not_started, short_temp_dir
from ldsaug_ray.errors import ResourceError

SOCKETS = "session_2026-11-28_10-10-44_396230_4194304/sockets"  # as Ray names them, with the largest process id


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def bound(folder: str) -> Path:
    """Bind Ray's longest socket below the folder; gives where it really is."""
    os.makedirs(f"{folder}/{SOCKETS}")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{folder}/{SOCKETS}/plasma_store.9")
    return Path(f"{folder}/{SOCKETS}/plasma_store.9").resolve()


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_sockets_of_a_long_folder_are_reached_by_a_short_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "of-the-batch-scheduler" / "job_1234567.node-0123" / "temporary files, ä"
    monkeypatch.setenv(name, str(long))
    with pytest.raises(OSError, match="AF_UNIX path too long"):
        bound(f"{long}/ray")
    short = short_temp_dir()
    assert short is not None
    (long / "ray" / SOCKETS).rmdir()
    (long / "ray" / SOCKETS).parent.rmdir()
    assert bound(short) == long / "ray" / SOCKETS / "plasma_store.9"  # what Ray writes stays in the scheduler's folder


@pytest.mark.parametrize("length", range(20, 60))
def test_only_where_it_is_needed(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each length a link is made just where the longest socket could not be."""
    folder = f"/tmp/{'x' * (length - 5)}"
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    fits = len(f"{folder}/ray/{SOCKETS}/plasma_store.9") < 108  # sun_path of Linux, which ends in a zero
    assert (short_temp_dir() is None) == fits


def test_nowhere_to_put_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 100)))
    monkeypatch.setattr(socket_folder, "_SHORT", (str(tmp_path / "absent"),))
    with pytest.raises(ResourceError, match=r"sockets in .*xxx.*; set RAY_TMPDIR to a folder with a short name"):
        short_temp_dir()


@pytest.mark.parametrize(
    ("error", "limits", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such", "/gone/ray"), {}, "/gone/ray: No such); TMPDIR, or RAY_TMPDIR"),
        (PermissionError(errno.EACCES, "Denied", "/locked/ray"), {}, "/locked/ray: Denied)"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/ray/x"), {}, "/tmp/ray/x: No space"),
        (OSError(errno.EMFILE, "Too many open files"), {}, "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), {}, "ulimit -u"),
        (OSError(errno.EADDRINUSE, "Address already in use"), {}, "another Ray, has the port"),
        (ValueError("Attempting to start raylet with 3 GPU, but CUDA_VISIBLE_DEVICES contains ['0']."), {"num_gpus": 3},
         "ray.num_gpus=3 is more than this process may see"),
        (ValueError("After taking into account object store and redis memory usage, the amount of memory (-9 GB)"),
         {"object_store_gb": 30.0}, "lower ray.object_store_gb=30."),
        (ValueError("After taking into account object store and redis memory usage, the amount of memory (-9 GB)"), {},
         "give ray.object_store_gb"),
        (Exception("The current node timed out during startup."), {}, "--verbose shows all that Ray says"),
    ],
)  # fmt: skip
def test_what_ray_refuses_is_told_with_what_to_do(error: Exception, limits: dict, words: str) -> None:
    told = str(not_started(error, Ray.model_validate(limits)))
    assert told.startswith("a local Ray does not start (")
    assert words in told
    assert told.endswith("engine=inline works without Ray")
