"""Reading settings: a YAML file, then `key.sub=value` overrides, then validation with errors a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from ldsaug_ray.config.settings import Config
from ldsaug_ray.errors import ConfigError, UsageError
from ldsaug_ray.storage import Location


def load_config(path: str | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (none: only the overrides), apply `key.sub=value` overrides, validate.

    Raises:
        ConfigError: a setting is unknown, of the wrong type, out of range, or contradicts another.
        UsageError: an override has no `=`.
        StorageError: the file cannot be read.
    """
    tree: Any = {}
    if path is not None:
        try:
            tree = yaml.safe_load(Location.of(path).read_text())
        except yaml.YAMLError as e:
            raise ConfigError(f"{path}: not valid YAML: {e}") from None
        tree = {} if tree is None else tree
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: expected settings as `name: value` lines, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as e:
        where = path if path is not None else "settings"
        raise ConfigError("\n".join(f"{where}: {_explain(d)}" for d in _distinct(e.errors()))) from None


def describe(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted name, default as YAML, help text), in the order of the tree."""
    for name, field in section.model_fields.items():
        inner = _section_of(field)
        if inner is not None:
            yield from describe(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _default_text(field), field.description or ""


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UsageError(f"override {override!r}: expected name=value, such as score.sigma.scale=0.3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise UsageError(f"override {override!r}: the value is not valid YAML: {e}") from None
    *parents, last = name.split(".")
    for depth, parent in enumerate(parents):
        below = tree.setdefault(parent, {})
        if below is None:
            below = tree[parent] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"override {override!r}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        tree = below
    tree[last] = value


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _default_text(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "(required)"
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()


def _distinct(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """One error a field: a union reports every branch that failed."""
    seen: dict[tuple[Any, ...], ErrorDetails] = {}
    for error in errors:
        seen.setdefault(_setting(error["loc"]), error)
    return list(seen.values())


def _setting(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The part of pydantic's location that names a setting (it appends the union branch it tried)."""
    section: type[BaseModel] | None = Config
    names: list[str] = []
    for part in loc:
        if section is None:
            break
        names.append(str(part))
        field = section.model_fields.get(str(part))
        section = _section_of(field) if field is not None else None
    return tuple(names)


def _explain(error: ErrorDetails) -> str:
    names = _setting(error["loc"])
    dotted = ".".join(names) or "settings"
    if error["type"] == "extra_forbidden":
        known = [n for n, _, _ in describe()]
        leaf = names[-1]
        section = ".".join(names[:-1])
        siblings = sorted({n.removeprefix(f"{section}.").split(".")[0] for n in known if n.startswith(section)})
        close = difflib.get_close_matches(dotted, known, 1, 0.75) or [
            ".".join([*names[:-1], m]) for m in difflib.get_close_matches(leaf, siblings, 1, 0.6)
        ]
        close = close or [n for n in known if n.split(".")[-1] == leaf][:1]
        hint = f"did you mean {close[0]}?" if close else f"possible here: {', '.join(siblings)}"
        return f"unknown setting {dotted}; {hint}"
    if error["type"] == "missing":
        return f"{dotted} is required (run `ldsaug settings` for what it means)"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    found = error["input"]
    shown = "" if isinstance(found, dict) or isinstance(found, BaseModel) else f" (found {found!r})"
    return f"{dotted}: {message}{shown}"
