"""Reading settings: a YAML file, then `key.sub=value` overrides, then validation with errors a user can act on."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from ldsaug_ray.common.registry import room_of
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config.experiment import Arm
from ldsaug_ray.config.tree import OWN, Config, config_class
from ldsaug_ray.errors import ConfigError, UsageError


def load_config(path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (none: only the overrides), apply `key.sub=value` overrides, validate.

    Raises:
        ConfigError: a setting is unknown, of the wrong type, out of range, or contradicts another.
        UsageError: an override has no `=`.
        StorageError: the file cannot be read.
    """
    return build_config({} if path is None else read_tree(path), overrides, path)


def read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a YAML file says, not validated yet.

    Raises:
        ConfigError: it is no YAML file, or none with settings.
        StorageError: it cannot be read.
    """
    try:
        tree = _apart(yaml.load(Location.of(path).read_text(), _Loader))
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: not valid YAML: {e}") from None
    except RecursionError:
        raise ConfigError(f"{path}: an alias (*name) lies within what it stands for") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected settings as `name: value` lines, found {_shown(tree)}")
    return tree


def build_config(
    tree: Mapping[str, Any], overrides: Sequence[str], path: str | os.PathLike[str] | None = None
) -> Config:
    """Apply overrides to a tree of `read_tree`, and validate; the tree stays as it is.

    Raises:
        ConfigError, UsageError: as `load_config`.
    """
    whole = copy.deepcopy(dict(tree))
    for override in overrides:
        _apply(whole, override)
    of = _class_for(whole)
    try:
        return of.model_validate(whole)
    except ValidationError as e:
        overridden = {override.partition("=")[0].strip() for override in overrides}
        lines = []
        for names, errors in _by_setting(e.errors(), of).items():
            where = "" if path is None or ".".join(names) in overridden else f"{path}: "
            lines.append(where + _worded(_explain(names, errors, of), of.model_fields["domain"].default))
        raise ConfigError("\n".join(lines)) from None


def _class_for(tree: Mapping[str, Any]) -> type[Config]:
    """The class of the tree's domain and codec; where they are no names, the tree's own, which says what is wrong."""
    domain, vae = tree.get("domain", OWN), tree.get("vae")
    kind = vae.get("kind") if isinstance(vae, dict) else None
    if not isinstance(domain, str) or not isinstance(kind, str | None):
        return Config
    if domain == OWN and kind is not None and ":" not in kind:
        return Config  # which knows its kinds
    return config_class(domain, kind)


def _worded(text: str, domain: str) -> str:
    """A message in the domain's words."""
    return str(room_of("domains").DOMAINS.get(domain).words(text))


def describe(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted name, default as YAML, help text), in the order of the tree."""
    for name, field in section.model_fields.items():
        inner = _section_of(field)
        if inner is not None:
            yield from describe(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _default_text(field), field.description or ""


def settings_of(domain: str) -> Iterator[tuple[str, str, str]]:
    """`describe` of a domain's tree, in its words, with the entries of the registries that a text names in braces.
    Raises ConfigError for an unknown domain."""
    selection = room_of("selection")
    known = {name: getattr(selection, name).help() for name in ("RULES", "RANKS", "BALANCES")}
    known |= {"SIGMA_RULES": room_of("lds").SIGMA_RULES.help(), "PRIORS": room_of("models.priors").PRIORS.help()}
    for name, default, text in describe(config_class(domain)):
        yield name, default, _worded(re.sub(r"\{([A-Z_]+)\}", lambda m: known[m[1]], text), domain)


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not all(name.split(".")):
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


def _apart(tree: Any) -> Any:
    """A copy in which what aliases (*name) stand for is there anew: an override of one must not change the others."""
    if isinstance(tree, dict):
        return {name: _apart(value) for name, value in tree.items()}
    return [_apart(value) for value in tree] if isinstance(tree, list) else tree


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    if get_origin(field.annotation) is dict:  # its names are the user's
        return None
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _default_text(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "(required)"
    return _yaml(list(field.default) if isinstance(field.default, tuple) else field.default)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1_000_000).removesuffix("...\n").strip()


def _shown(value: Any) -> str:
    text = _yaml(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _by_setting(errors: list[ErrorDetails], of: type[Config]) -> dict[tuple[str, ...], list[ErrorDetails]]:
    """Errors of each setting, in order: a union reports every branch that failed."""
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in errors:
        found.setdefault(_setting(error["loc"], of), []).append(error)
    return found


def _setting(loc: tuple[int | str, ...], of: type[Config]) -> tuple[str, ...]:
    """The part of pydantic's location that names a setting (it appends list positions and union branches)."""
    section: type[BaseModel] | None = of
    inside: type[BaseModel] | None = None  # a mapping of sections under names of the user's
    names: list[str] = []
    for part in loc:
        if section is None and inside is None:
            break
        names.append(str(part))
        if section is None:
            section, inside = inside, None
            continue
        field = section.model_fields.get(str(part))
        section, inside = (None, None) if field is None else (_section_of(field), _values_of(field))
    return tuple(names)


def _values_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that each value of a mapping is, if it is one."""
    values = get_args(field.annotation)[1:] if get_origin(field.annotation) is dict else ()
    return next((v for v in values if isinstance(v, type) and issubclass(v, BaseModel)), None)


def _explain(names: tuple[str, ...], errors: list[ErrorDetails], of: type[Config]) -> str:
    """One line on what is wrong with one setting: its name, what is possible, what was found."""
    error = errors[0]
    dotted = ".".join(names)
    kind, found, place = error["type"], error["input"], error["loc"][len(names) :]
    if kind in ("extra_forbidden", "invalid_key"):
        return f"unknown setting {dotted}; {_hint(names, of)}"
    if kind == "missing" and not place:
        return f"{dotted} is required (run `ldsaug settings` for what it means)"
    if kind == "model_type":
        below = sorted(
            {n.removeprefix(f"{dotted}.").split(".")[0] for n, _, _ in describe(of) if n.startswith(f"{dotted}.")}
        )
        return (
            f"{dotted} is a section: give settings in it ({', '.join(below)}) or leave it out (found {_shown(found)})"
        )
    if kind == "value_error":  # a validator's own words
        told = isinstance(found, dict | BaseModel) or repr(found) in error["msg"]
        shown = "" if told else f" (found {_shown(found)})"
        where = f"{dotted}: " if names else ""  # else of the tree as a whole
        return f"{where}{error['msg'].removeprefix('Value error, ')}{shown}"
    item = f" item {place[0] + 1}" if place and isinstance(place[0], int) else ""  # else what follows is a union branch
    words = dict.fromkeys(expected(e) for e in (errors[:1] if item else errors))
    if "a number" in words:
        words.pop("a whole number", None)
    return f"{dotted}{item} must be {' or '.join(words)} (found {'nothing' if kind == 'missing' else _shown(found)})"


def expected(error: ErrorDetails) -> str:
    """What a value must be, of one of pydantic's errors."""
    limits = error.get("ctx", {})
    words = {
        "missing": "there",  # an item of a list with a fixed number of them
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "string_type": "text (in quotes, where it looks like something else)",
        "tuple_type": "a list, such as [a, b]",
        "greater_than": f"more than {limits.get('gt', 0):.12g}",
        "greater_than_equal": f"at least {limits.get('ge', 0):.12g}",
        "less_than": f"less than {limits.get('lt', 0):.12g}",
        "less_than_equal": f"at most {limits.get('le', 0):.12g}",
        "too_short": f"a list of at least {limits.get('min_length')}",
        "too_long": f"a list of at most {limits.get('max_length')}",
        "literal_error": str(limits.get("expected")),
    }
    return words.get(error["type"]) or error["msg"].removeprefix("Input should be ")


def _hint(names: tuple[str, ...], of: type[Config]) -> str:
    leaves = [n for n, _, _ in describe(of)]
    known = list(dict.fromkeys(".".join(n.split(".")[:k]) for n in leaves for k in range(1, n.count(".") + 2)))
    section = ".".join(names[:-1])
    here = [n for n in known if n.rpartition(".")[0] == section] or [f"{section}.{n}" for n in Arm.model_fields]
    elsewhere = [n for n in known if n.rpartition(".")[2] == names[-1]]
    close = elsewhere or [f"{section}.{m}".lstrip(".") for m in _close(names[-1], [n.rpartition(".")[2] for n in here])]
    if close:
        return f"did you mean {' or '.join(close[:6])}?"
    return f"possible here: {', '.join(n.rpartition('.')[2] for n in here)}"


def _close(word: str, words: list[str]) -> list[str]:
    return difflib.get_close_matches(word, words, 1, 0.6)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a name given twice is an error: the first value would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in YAML."""
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in seen and name not in (None, "<<"):
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
