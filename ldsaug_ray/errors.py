"""Errors that a user can act on: each message names the field or file, what was found, and what is possible."""

from __future__ import annotations

import sys
from bdb import BdbQuit
from collections.abc import Iterator
from contextlib import contextmanager


class LdsaugError(Exception):
    """Base of every error this project raises on purpose; the command line prints its text without a traceback."""

    def __reduce__(self) -> tuple[object, ...]:  # keeps subclasses with their own __init__ picklable across Ray workers
        return (_rebuild, (type(self), str(self)))


class ImpossibleError(LdsaugError):
    """Settings that cannot work, here or on these data. A search or an experiment tells it, and goes on with others."""


class ConfigError(ImpossibleError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class NothingSelectedError(ImpossibleError):
    """The selection rules keep no candidate; the message lists thresholds that would."""


class DivergedError(ImpossibleError):
    """A loss, a gradient or what a model gives is not finite; weights are those from before the step."""


class UsageError(LdsaugError):
    """The command line itself is malformed (exit code 2)."""


class InputError(LdsaugError):
    """The user's data (images, attribute file, latents, weights) cannot be used."""


class MissingStageError(LdsaugError):
    """A stage that is read is not complete, or was made with other settings."""


class StorageError(LdsaugError):
    """The run directory cannot be read or written, or what a stage reads from elsewhere cannot be looked at."""


class ResourceError(LdsaugError):
    """There is not what a stage asks for: CPUs, GPUs, memory, a cluster, a package."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory, or this process's, was too small."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    # on the CPU, and in TorchScript on any device, torch has only words for it
    return isinstance(error, RuntimeError) and any(s in str(error) for s in ("out of memory", "can't allocate memory"))


@contextmanager
def failing(what: str, *, own: bool = True) -> Iterator[None]:
    """Code of the user's runs within (`own`; else ours): whatever else it raises is an InputError that names it."""
    try:
        yield
    except Exception as e:
        if not own or isinstance(e, LdsaugError | BdbQuit) or is_out_of_memory(e):
            raise
        raise InputError(f"{what} failed ({type(e).__name__}: {e})") from e


def error_named(kind: str, message: str) -> LdsaugError:
    """The error class of that name with that message, as it travelled from a worker; the base class if unknown."""
    kinds: list[type[LdsaugError]] = [LdsaugError]
    for known in kinds:
        kinds += known.__subclasses__()
    return _rebuild(next((k for k in kinds if k.__name__ == kind), LdsaugError), message)


def _rebuild(cls: type[LdsaugError], message: str) -> LdsaugError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    return error
