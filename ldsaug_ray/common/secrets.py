"""Keeping passwords out of logs, manifests, saved settings and error messages."""

from __future__ import annotations

import re
from typing import Any

_USER_INFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s]+@")


def without_password(text: str) -> str:
    """The text with user:password@ removed from every address in it."""
    return _USER_INFO.sub(r"\1", text)


def without_passwords(tree: Any) -> Any:
    """A tree of plain JSON/YAML values with every text so cleaned."""
    if isinstance(tree, dict):
        return {k: without_passwords(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_passwords(v) for v in tree]
    return without_password(tree) if isinstance(tree, str) else tree


def first_line(error: BaseException) -> str:
    """What went wrong in one line without passwords; whole, for advice stands at the end."""
    text = str(error).strip()
    return without_password(text.splitlines()[0])[:2000] if text else type(error).__name__
