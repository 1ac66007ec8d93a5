"""Train, test, unused: a split that depends on the seed and the set of keys, never on their order or their files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ldsaug_ray.errors import InputError

SPLITS = ("train", "test", "unused")


def assign_splits(
    keys: Sequence[str],
    *,
    seed: int,
    train: int | float,
    test: int | float,
    unit: str = "images",
    split_by: str | None = None,
) -> np.ndarray:
    """One of `SPLITS` for every key, as a NumPy array of strings [len(keys)].

    Keys are ranked by a BLAKE2b hash keyed with the seed: the first are train, the next test, the rest unused. So a
    key added or removed moves at most the keys at the two borders, and raising `test` leaves train as it is. Groups of
    `split_by` are ranked instead, and each goes whole to where its middle falls.

    Args:
        keys: unique.
        seed: any integer; another one gives another split.
        train: a count (int) or a fraction of all keys (float), rounded.
        test: likewise.
        unit: what they are keys of, for messages.
        split_by: a regular expression; keys are a group where its groups, or it itself, match the same text.

    Raises:
        InputError: more is asked for than there are keys, fewer than two are left to train on, none for a test that is
            asked for, or `split_by` is not found in a key.
        ValueError: a key occurs twice.
    """
    n = len(keys)
    if len(set(keys)) < n:
        raise ValueError("keys must be unique: remove duplicates before splitting")
    n_train = train if isinstance(train, int) else min(n, round(train * n))
    if isinstance(train, float) and isinstance(test, float):  # rounded together: 0.5 + 0.5 loses no key
        n_test = min(n, round((train + test) * n)) - n_train
    else:
        n_test = test if isinstance(test, int) else round(test * n)
    if n_train + n_test > n:
        raise InputError(
            f"data.train = {train} and data.test = {test} ask for {n_train} + {n_test} = {n_train + n_test} {unit}; "
            f"{n} were found: ask for fewer, or for fractions"
        )
    keyed = hashlib.blake2b(key=hashlib.blake2b(str(seed).encode(), digest_size=32).digest(), digest_size=16)

    def rank(group: str) -> tuple[bytes, str]:
        h = keyed.copy()
        h.update(group.encode("utf-8", "surrogatepass"))
        return h.digest(), group

    groups = keys if split_by is None else _groups(keys, split_by)
    sizes = Counter(groups)
    order = sorted(sizes, key=rank)
    size = np.array([sizes[group] for group in order])
    middle = size.cumsum() - size / 2
    sides = np.where(middle < n_train, "train", np.where(middle < n_train + n_test, "test", "unused"))
    side = dict(zip(order, sides.tolist(), strict=True))
    splits = np.array([side[group] for group in groups], "<U6")
    made = "" if split_by is None else f" in {len(size)} groups by data.split_by"
    if (left := (splits == "train").sum()) < 2:
        raise InputError(
            f"data.train = {train} of {n} {unit}{made} gives {left} to train on; pairs need two at least, so raise it "
            f"or add {unit}"
        )
    if n_test and made and not (splits == "test").any():
        raise InputError(f"data.test = {test} of {n} {unit}{made}, the largest of {size.max()}, gives none; raise it")
    return splits


def _groups(keys: Sequence[str], split_by: str) -> list[str]:
    found = [re.search(split_by, key) for key in keys]
    if lacking := [key for key, match in zip(keys, found, strict=True) if match is None]:
        raise InputError(
            f"data.split_by = {split_by!r} is not found in {len(lacking)} of {len(keys)} keys, such as {lacking[0]!r}"
        )
    return ["\0".join(map(str, match.groups() or (match[0],))) for match in found if match is not None]
