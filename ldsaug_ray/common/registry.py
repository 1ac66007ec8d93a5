"""Where the rules, measures and priors are that a setting names: our own by a name, a user's by `package.module:Name`.

A room keeps each entry in a file of its own, which adds it; `import_all` finds the files, so that a new one needs no
edit elsewhere.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Generic, TypeVar

from ldsaug_ray.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        what: what an entry is, for messages: "selection rule".
        kind: the class that every entry is an instance of.
    """

    def __init__(self, what: str, kind: type[T]) -> None:
        self.what, self.kind = what, kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register an entry, and give it back. Raises ValueError for a name that is taken: a mistake in the code."""
        if name in self._entries:
            raise ValueError(f"there are two entries of the {self.what} {name!r}")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """The entry of that name, or what `package.module:Name` names: an instance of the kind, or a class that gives
        one without arguments.

        Raises:
            ConfigError: there is none; its module is missing or cannot be imported; or it is something else.
        """
        if name not in self._entries and ":" in name:
            return self._imported(name)
        if name not in self._entries:
            known = ", ".join(self.names())
            raise ConfigError(
                f"unknown {self.what} {name!r}; possible: {known}, or one of your own as package.module:Name"
            )
        return self._entries[name]

    def check(self, name: str) -> str:
        """The name, where `get` knows it: a validator for a setting. Raises ValueError, as pydantic wants it."""
        try:
            self.get(name)
        except ConfigError as e:
            raise ValueError(str(e)) from None
        return name

    def names(self) -> tuple[str, ...]:
        """Registered names, in the order of the alphabet."""
        return tuple(sorted(self._entries))

    def help(self) -> str:
        """What the entries are, by their `words`, for the description of the setting that names one."""
        entries: list[tuple[str, Any]] = sorted(self._entries.items())
        return "; ".join(f"{name}: {entry.words}" for name, entry in entries) + "; package.module:Name: one of your own"

    def _imported(self, name: str) -> T:
        module, _, attribute = name.partition(":")
        if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ConfigError(f"{self.what} {name!r} is not of the form package.module:Name")
        try:
            found = getattr(import_module(module), attribute, None)
            entry = found() if isinstance(found, type) and issubclass(found, self.kind) else found
        except ModuleNotFoundError as e:
            missing = e.name or module
            why = "" if module.startswith(missing) else f", which {module} imports"
            why_not = f"there is no module {missing!r}{why}; install it, or add its folder to PYTHONPATH"
            raise ConfigError(f"{self.what} {name!r}: {why_not}") from None
        except Exception as e:  # whatever a user's module does when it is imported
            raise ConfigError(f"{self.what} {name!r} cannot be used: {type(e).__name__}: {e}") from e
        if found is None:
            raise ConfigError(f"{self.what} {name!r}: the module {module} has no {attribute!r}")
        if not isinstance(entry, self.kind):
            raise ConfigError(
                f"{self.what} {name!r} is no {self.kind.__name__} but {type(entry).__name__}; it must be one, or a "
                f"subclass of {self.kind.__module__}.{self.kind.__name__}"
            )
        return entry


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, whose `__name__` and `__path__` these are, so that each adds its entries."""
    for found in pkgutil.iter_modules(path):
        import_module(f"{package}.{found.name}")


def room_of(name: str) -> Any:
    """The package `ldsaug_ray.name`, for settings to ask its registry: they lie below it, and must not import it before
    it is needed."""
    return import_module(f"ldsaug_ray.{name}")
