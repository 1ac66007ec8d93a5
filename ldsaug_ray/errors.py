"""Errors that a user can act on: each message names the field or file, what was found, and what is possible."""

from __future__ import annotations


class LdsaugError(Exception):
    """Base of every error this project raises on purpose; the command line prints its text without a traceback."""

    def __reduce__(self) -> tuple[object, ...]:  # keeps subclasses with their own __init__ picklable across Ray workers
        return (_rebuild, (type(self), str(self)))


class ConfigError(LdsaugError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class UsageError(LdsaugError):
    """The command line itself is malformed (exit code 2)."""


class InputError(LdsaugError):
    """The user's data (images, attribute file, latents, checkpoint) cannot be used."""


class StorageError(LdsaugError):
    """The run directory cannot be read or written, or what a stage reads from elsewhere cannot be looked at."""


class NothingSelectedError(LdsaugError):
    """The selection rules keep no candidate; the message lists thresholds that would."""


class ResourceError(LdsaugError):
    """The cluster lacks what a stage asks for."""


class DivergedError(LdsaugError):
    """A loss or gradient is not finite; the weights are those from before the step."""


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
