"""Train, test, unused: a split that depends on the seed and the set of keys, never on their order or their files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ldsaug_ray.errors import InputError

SPLITS = ("train", "test", "unused")


def assign_splits(
    keys: Sequence[str], *, seed: int, train: int | float, test: int | float, unit: str = "images"
) -> np.ndarray:
    """One of `SPLITS` for every key, as a NumPy array of strings [len(keys)].

    Keys are ranked by a BLAKE2b hash keyed with the seed: the first are train, the next test, the rest unused. So a
    key added or removed moves at most the keys at the two borders, and raising `test` leaves train as it is.

    Args:
        keys: unique.
        seed: any integer; another one gives another split.
        train: a count (int) or a fraction of all keys (float), rounded.
        test: likewise.
        unit: what they are keys of, for messages.

    Raises:
        InputError: more is asked for than there are keys, or fewer than two are left to train on.
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
    if n_train < 2:
        raise InputError(
            f"data.train = {train} of {n} {unit} gives {n_train} to train on; pairs need two at least, so raise it or "
            f"add {unit}"
        )
    keyed = hashlib.blake2b(key=hashlib.blake2b(str(seed).encode(), digest_size=32).digest(), digest_size=16)

    def rank(i: int) -> tuple[bytes, str]:
        h = keyed.copy()
        h.update(keys[i].encode("utf-8", "surrogatepass"))
        return h.digest(), keys[i]

    order = sorted(range(n), key=rank)
    splits = np.full(n, "unused", dtype="<U6")
    splits[order[:n_train]] = "train"
    splits[order[n_train : n_train + n_test]] = "test"
    return splits
