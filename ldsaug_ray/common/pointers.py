"""Files that only stand for others: what a clone holds until Git LFS or git-annex has fetched the data."""

from __future__ import annotations

POINTER_BYTES = 64
_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "Git LFS", "git lfs pull"),
    (b"/annex/objects/", "git-annex", "git annex get"),
)


def pointer(begin: bytes) -> str | None:
    """What to do about a file that only stands for another one, by its first `POINTER_BYTES`; None: it is itself."""
    for mark, what, command in _POINTERS:
        if begin.lstrip().startswith(mark):
            return f"a {what} pointer and not the data: run `{command}` in the clone that it is from"
    return None
