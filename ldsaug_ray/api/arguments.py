"""What users hand over, checked and in our own terms: arrays, labels, sigma, settings by keyword.

Every error names the argument, says what was found and what is possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ldsaug_ray.config import Config, Score, Select, Sigma
from ldsaug_ray.config.load import build_config, expected
from ldsaug_ray.errors import ConfigError, InputError

# the settings whose argument has another name
_ARGUMENTS = {"score.n_candidates": "n", "select.top_fraction": "keep", "select.top_count": "keep"}
_NORM = re.compile(r"norm(?:\s*([/*])\s*([0-9.eE+-]+))?")
PAPER_SHARE = 0.2
MOST_LABELS = 127  # a label is stored as int8, 0 stands for none


def array_of(value: Any, name: str, *, rows: int = 1) -> NDArray[np.float32]:
    """Latents as float32[N, d], in C order, of an array, a torch tensor on any device, or nested lists.

    Raises:
        InputError: not 2-D, not real, NaN or infinite, or fewer than `rows` rows; the message names the argument.
    """
    from ldsaug_ray.lds import validate_latents

    try:
        z = validate_latents(numbers(value), name=name)
    except (TypeError, ValueError) as e:
        raise InputError(f"{name} is no array of numbers [N, d] ({type(value).__name__}): {e}") from None
    if len(z) < rows:
        raise InputError(f"{name} has {len(z)} row; at least {rows} are needed")
    return np.ascontiguousarray(z, np.float32)


def numbers(value: Any) -> NDArray[Any]:
    """An array, or a tensor wherever it is, as NumPy's."""
    if callable(getattr(value, "detach", None)):  # torch's, known without importing it
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() and value.element_size() < 4 else value  # bfloat16
    return np.asarray(value)


def stacked(batch: Mapping[str, Any], column: str) -> NDArray[Any]:
    """A column as one array; Ray gives rows that it could not stack as objects."""
    if column not in batch:
        raise InputError(f"the batch has no column {column!r}; its columns are {', '.join(map(str, batch))}")
    rows = np.asarray(batch[column])
    if rows.dtype != object:
        return rows
    shapes = {np.shape(row) for row in rows}
    if len(shapes) != 1:
        found = ", ".join(sorted(map(str, shapes))[:3])
        raise InputError(f"the column {column} has rows of different shapes ({found}, …); they must be alike")
    return np.stack(list(rows))


def labels_of(value: Any, n: int, name: str = "labels") -> tuple[NDArray[Any], NDArray[np.int8]]:
    """The different labels, sorted, and of each row which it has, int8[n], from 1.

    Raises:
        InputError: not one label a row, a label that is missing, or too many different ones.
    """
    try:
        labels = numbers(value)
    except ValueError:
        raise InputError(f"{name} must be one for each of the {n} rows of z; found lists of several lengths") from None
    if labels.shape != (n,):
        raise InputError(f"{name} must be one for each of the {n} rows of z; found shape {labels.shape}")
    if (lacking := lacks(labels)).any():
        raise InputError(f"{name} lack in {lacking.sum()} of {n} rows, first in row {np.argmax(lacking)}")
    try:
        known, of = np.unique(labels, return_inverse=True)
    except TypeError as e:
        raise InputError(f"{name} must be of one kind, such as text or whole numbers: {e}") from None
    if len(known) > MOST_LABELS:
        raise InputError(f"{name} has {len(known)} different values; at most {MOST_LABELS} are possible")
    return known, (of + 1).astype(np.int8)


def lacks(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a label is None or NaN, bool[n]."""
    return np.array([x is None or x != x for x in labels.tolist()], bool)  # NaN alone is not itself


def in_arguments(text: str) -> str:
    """What an error says of settings, said of the arguments of `augment`."""
    for setting, argument in _ARGUMENTS.items():
        text = text.replace(setting, argument)
    return re.sub(r"\b(?:score|select)\.(?=[a-z])", "", text)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's: what settings are made of."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def sigma_settings(sigma: Any) -> Sigma:
    """The bandwidth rule that an argument `sigma` stands for.

    A number is sigma itself; `norm/5` (the paper's) and `norm*0.3` are shares of the latents' mean norm; else the name
    of a rule of `score.sigma.rule`, or a mapping with its fields: {"rule": "parent_share", "share": 0.2}.

    Raises:
        ConfigError: it is none of these.

    >>> sigma_settings("norm/5") == sigma_settings({"rule": "norm_fraction", "scale": 0.2})
    True
    >>> sigma_settings(3).value
    3.0
    """
    if isinstance(sigma, Sigma):
        return sigma
    given: Any = sigma
    if isinstance(sigma, str):
        given = {"rule": sigma}
        if share := _NORM.fullmatch(sigma.strip()):
            given = {"rule": "norm_fraction", "scale": _share(sigma, *share.groups())}
    elif not isinstance(sigma, Mapping):
        given = {"rule": "fixed", "value": sigma}
    try:
        return Sigma.model_validate(given)
    except ValidationError as e:
        bounds = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
        why = "; ".join(
            f"must be {expected(error)}" if error["type"] in bounds else error["msg"].removeprefix("Value error, ")
            for error in e.errors()
        )
        raise ConfigError(
            f"sigma = {sigma!r}: {why}; possible are a number, norm/5, the name of a rule, or a mapping with its fields"
        ) from None


def _share(sigma: str, sign: str | None, number: str | None) -> float | None:
    if number is None:
        return 1.0
    try:
        share = float(number)
        return 1 / share if sign == "/" else share
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"sigma = {sigma!r}: expected a number above 0 after norm{sign}") from None


def settings_of(
    run_dir: str,
    *,
    n: int,
    plan: str,
    sigma: Any,
    keep: float | None,
    balance: str | None,
    labelled: bool,
    held_out: bool,
    seed: int,
    engine: str,
    more: Mapping[str, Any],
) -> Config:
    """The settings of a run whose latents are given, from the arguments of `augment`.

    more: further settings of sections `score` and `select`, by their names.

    Raises:
        ConfigError: one is unknown or impossible; the message names the argument.
    """
    keep, n, seed = _plain(keep), _plain(n), _plain(seed)
    score: dict[str, Any] = {"n_candidates": n, "plan": plan, "sigma": sigma_settings(sigma).model_dump()}
    select: dict[str, Any] = {}
    for name, value in more.items():
        section = score if name in Score.model_fields else select if name in Select.model_fields else None
        if section is None or (name == "n_candidates"):
            known = sorted({*Score.model_fields, *Select.model_fields} - {"n_candidates", "plan", "sigma", "balance"})
            raise ConfigError(f"unknown argument {name!r}; beside its own, augment takes {', '.join(known)}")
        section[name] = _plain(value)
    if keep is None:
        select.setdefault("top_fraction", None)
    elif keep != PAPER_SHARE:  # else the section's own default, which is not one beside another rule
        name = "top_fraction" if isinstance(keep, float) else "top_count"
        if name in select:
            raise ConfigError(f"keep = {keep} is {name} = {select[name]} already; give one of them")
        select[name] = keep
        if name == "top_count":
            select.setdefault("top_fraction", None)
    if balance is not None:
        if not isinstance(balance, str):
            raise ConfigError(f"balance = {balance!r}: must be text, such as 'parent', or None")
        select["balance"] = "label:label" if balance == "label" else balance
        if balance.startswith("label") and not labelled:
            raise ConfigError(f"balance = {balance!r} needs labels: give one for each row of z")
    data = {"source": "latents", "attributes": "columns" if labelled else None}
    tree = {"run_dir": run_dir, "engine": engine, "seed": seed, "data": data, "score": score, "select": select}
    try:
        config = build_config(tree, ())
    except ConfigError as e:
        raise ConfigError(in_arguments(str(e))) from None
    if config.select.needs_held_out and not held_out:
        raise ConfigError("held_out is needed: tau = 'auto' and typical compare candidates with held-out real latents")
    if config.select.rule.sharpest:
        raise ConfigError(f"which = {config.select.which!r} looks at decoded images, and augment has none")
    if config.select.rule.judged(config.select):
        raise ConfigError(f"rank = {config.select.rank!r} decodes every candidate, and augment has no decoder")
    return config
