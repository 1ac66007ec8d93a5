"""What file systems and object stores raise, in words, with what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from ldsaug_ray.errors import StorageError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again, finished parts are kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again, finished parts are kept",
    errno.EACCES: "permission denied; check the owner and rights, or choose another run_dir",
    errno.EPERM: "operation not permitted; check the owner and rights, or choose another run_dir",
    errno.EROFS: "the file system is read-only; choose another run_dir",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOENT: "no such file or folder",
    errno.ENAMETOOLONG: "a name in the path is too long",
}
_REFUSALS = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "HTTP status 403",
)
_WITHOUT_NUMBER = {  # fsspec raises these without an errno
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    NotADirectoryError: errno.ENOTDIR,
    IsADirectoryError: errno.EISDIR,
    FileExistsError: errno.EEXIST,
}


def advice(number: int) -> str:
    """What an errno means and what to do about it; nothing where we know no more than the system's words."""
    return _ADVICE.get(number) or (os.strerror(number) if number else "")


def _cloud_advice(reason: str) -> str:
    """What to look at after an object store's refusal."""
    if any(word in reason for word in _REFUSALS):
        return (
            "; check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or the machine's "
            "role) and their rights to list, read, write and delete there"
        )
    return ""


@contextmanager
def clear_errors(verb: str, uri: str) -> Iterator[None]:
    """Turn what the file system raises in the block into a StorageError with advice."""
    try:
        yield
    except OSError as e:
        number = e.errno or _WITHOUT_NUMBER.get(type(e), 0)
        why = advice(number) or f"{first_words(e)}{_cloud_advice(first_words(e))}"
        raise StorageError(f"cannot {verb} {uri}: {why}") from e
    except pa.ArrowInvalid as e:
        raise StorageError(f"cannot {verb} {uri}: {first_words(e)}") from e


def first_words(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
