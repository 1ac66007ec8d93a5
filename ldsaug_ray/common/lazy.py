"""A package's face without the price of what lies behind it: each name is imported when it is asked for.

A package lists its face as imports under TYPE_CHECKING, which type checkers and people read, and has
`__getattr__ = lazily(__name__, __file__)` else.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> Callable[[str], Any]:
    """`__getattr__` of the package whose `__init__.py` is `file`."""
    places: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            places |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = places[name]
        value = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)  # from now on without this function
        return value

    return find
