"""Files on the Hugging Face Hub, `hf://datasets/OWNER/NAME[@REVISION]/…`: huggingface_hub's own file system, whose
failures are OSErrors that say what to do. The token is HF_TOKEN's or that of `hf auth login`; it is never kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

from huggingface_hub import HfFileSystem, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def _clearly(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with _clear():
            return method(*arguments, **named)

    return call


@contextmanager
def _clear() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as e:  # of httpx, which are no OSErrors, too
        _tell(e)


def _tell(error: Exception) -> NoReturn:
    hub = constants.ENDPOINT
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, GatedRepoError):
        words = (
            "access to it is gated: accept its terms on its page with an account of yours, and give that account's "
            "token as HF_TOKEN"
        )
    elif isinstance(error, OfflineModeIsEnabled):
        words = f"HF_HUB_OFFLINE is set, so nothing is asked of the Hub at {hub}"
    elif isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        answer = f"the Hub at {hub} answers {status}: {error.server_message or words}"
        words = f"{answer}; is HF_TOKEN one that may read it?" if status in (401, 403) else answer
    elif type(error).__module__.partition(".")[0] in ("httpx", "httpx2"):
        words = f"the Hub at {hub} does not answer ({words}); check the network, and HF_ENDPOINT where that is set"
    raise OSError(words) from error


class HubFiles(HfFileSystem):
    """HfFileSystem with clear errors, and a hash for every file."""

    info = _clearly(HfFileSystem.info)
    find = _clearly(HfFileSystem.find)

    def _open(self, *arguments: Any, **named: Any) -> Any:
        with _clear():
            file: Any = super()._open(*arguments, **named)
        file.read = _clearly(file.read)
        return file

    def absence(self, path: str) -> str:
        """Why nothing is at a path: no such dataset, no such revision, or no such file in it."""
        try:
            with _clear():
                self.resolve_path(path)
        except FileNotFoundError as e:
            if isinstance(e.__cause__, RevisionNotFoundError):
                return f"the Hub at {self.endpoint} has the dataset, but no such revision of it"
            if isinstance(e.__cause__, RepositoryNotFoundError):
                return (
                    f"the Hub at {self.endpoint} has no such dataset, or it is private: then HF_TOKEN must be a token "
                    "that may read it"
                )
        return "there is no such file or folder in the dataset"

    def hashes(self, path: str) -> dict[str, str]:
        """Path -> git's hash of each file at or below a path, from the listing that was just made."""
        found = self.find(path, detail=True)
        return {name: str(info["blob_id"]) for name, info in found.items() if "blob_id" in info}
