"""Groups that `top_fraction` and `top_count` hold within, so that the densest mode does not take all of A.

Every training latent is of one group, and a candidate of its nearer parent's: `parent`, each latent is one; `cluster`,
k-means cells; `label:NAME`, the values of an attribute. How many each group keeps adds up exactly; in memory are the
kept and a chunk, as without groups. Arrays at hand and stored parts take the same way: `grouping`, `nearer`, `counted`,
`select`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.selection.best import id_hash

Index = NDArray[np.int64]

LABEL = "label:"
FITTED = 65_536  # latents that k-means looks at; the others are put into the nearest cell
NAMED = 3  # groups that a message names


@dataclass(frozen=True, eq=False)
class Groups:
    """Which group each training latent is of, int64[N], and the groups' names, for messages."""

    of: Index
    names: Sequence[str]


@dataclass(frozen=True)
class Balance:
    """A way to find groups: find(z float32[N, d], keys [N], k, seed); k: cells, by select.clusters. words: of it."""

    find: Callable[[NDArray[np.floating], Sequence[str], int, int], Groups]
    words: str = ""


@dataclass(frozen=True, eq=False)
class Grouped:
    """Tables of candidates that have a column `group` int64, read anew at each iteration; names of the groups."""

    names: Sequence[str]
    read: Callable[[], Iterable[pa.Table]]

    def __iter__(self) -> Iterator[pa.Table]:
        return iter(self.read())


BALANCES = Registry("select.balance", Balance)


def _each(z: NDArray[np.floating], keys: Sequence[str], k: int, seed: int) -> Groups:
    return Groups(np.arange(len(keys)), keys)


def _cells(z: NDArray[np.floating], keys: Sequence[str], k: int, seed: int) -> Groups:
    return Groups(cells(z, k, seed), [f"cluster {c}" for c in range(k)])


BALANCES.add("parent", Balance(_each, "of each nearer parent"))
BALANCES.add("cluster", Balance(_cells, "of its k-means cell"))


def cells(z: NDArray[np.floating], k: int, seed: int, fitted: int = FITTED) -> Index:
    """k-means cells of latents float[N, d], int64[N] within 0..k-1: k-means++ by the seed, of at most
    `fitted` of them.

    Raises:
        ImpossibleError: fewer latents than cells.
    """
    from sklearn.cluster import KMeans

    check_cells(k, len(z))
    rows = np.arange(len(z))
    if len(z) > fitted:
        rows = np.sort(np.random.default_rng([seed, k]).choice(len(z), fitted, replace=False))
    found = KMeans(k, n_init=1, random_state=seed).fit(z[rows])
    return np.concatenate([found.predict(z[a : a + fitted]) for a in range(0, len(z), fitted)]).astype(np.int64)


def check_cells(k: int, n: int) -> None:
    """Raises ImpossibleError where n training latents are too few for k cells."""
    if k > n:
        raise ImpossibleError(f"select.clusters = {k} cells of {n} training latents; lower it")


def check_balance(name: str) -> str:
    """The name of a balance, where there is one: a validator. Raises ValueError."""
    if name == "none" or (name.startswith(LABEL) and len(name) > len(LABEL)):
        return name
    try:
        BALANCES.get(name)
    except ConfigError as e:
        raise ValueError(str(e).replace("possible: ", "possible: none, label:NAME, ", 1)) from None
    return name


def grouping(
    balance: str,
    z: NDArray[np.floating],
    keys: Sequence[str],
    labels: Mapping[str, NDArray[np.integer]],
    *,
    clusters: int = 50,
    seed: int = 0,
    missing: int = 0,
) -> Groups:
    """Groups of training latents by `select.balance`.

    Args:
        balance: parent, cluster, label:NAME, or package.module:Name of a `Balance`.
        z: float[N, d].
        keys: [N], names of the latents, for messages.
        labels: attribute -> its values [N].
        clusters: k-means cells, with cluster.
        seed: of k-means.
        missing: the value that stands for no label.

    Raises:
        InputError: a label that is not known, or not of every latent.
        ImpossibleError: fewer latents than cells.
    """
    if not balance.startswith(LABEL):
        found = BALANCES.get(balance).find(z, keys, clusters, seed)
        if np.shape(found.of) != (len(keys),) or np.min(found.of) < 0 or np.max(found.of) >= len(found.names):
            raise InputError(f"select.balance: {balance} must give a group of 0..{len(found.names) - 1} to each latent")
        return found
    name = balance.removeprefix(LABEL)
    if name not in labels:
        known = ", ".join(labels) or "none; set data.attributes"
        raise InputError(f"select.balance: {balance}: the training images have no such label; known are: {known}")
    lacking = np.flatnonzero(labels[name] == missing)
    if len(lacking):
        raise InputError(
            f"select.balance: {balance}: {len(lacking)} of {len(keys)} training images have no such label, as "
            f"{keys[int(lacking[0])]!r}: leave them out (name it alone in data.attribute_names, with "
            "data.missing_attributes: quarantine), or balance otherwise"
        )
    values, of = np.unique(labels[name], return_inverse=True)
    return Groups(of.reshape(-1).astype(np.int64), [f"{name} {value}" for value in values.tolist()])


def nearer(ids: Index, alpha: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    """Whether candidates (1 - alpha) z_i + alpha z_j are nearer to j than to i; half-way a hash of seed and id says."""
    heads = id_hash(ids.astype(np.uint64) + id_hash(np.array([seed], np.uint64))) >> np.uint64(63) == 1
    return np.where(np.isclose(alpha, 0.5, rtol=0, atol=1e-9), heads, alpha > 0.5)


def counted(chunks: Iterable[tuple[Index, Index]], groups: int, strata: int = 1) -> Index:
    """Candidates of each group and stratum, int64[groups * strata], group slowest, of chunks (ids, group numbers)."""
    sizes = np.zeros(groups * strata, np.int64)
    for ids, of in chunks:
        sizes += np.bincount(of * strata + ids % strata, minlength=len(sizes))
    return sizes


def proportional(sizes: Index, total: int, seed: int) -> Index:
    """`total` places among groups in proportion to their sizes, int64[G], by largest remainders (Hamilton); equal
    remainders by a seeded hash of the group, since groups may be in the order of classes. At most a group's size."""
    n = int(sizes.sum())
    total = min(total, n)
    if not total:
        return np.zeros_like(sizes)
    quotas, rest = np.divmod(sizes * total, n)  # below 2**63 for 3e9 candidates
    over = total - int(quotas.sum())
    quotas[np.lexsort((_ranks(len(sizes), seed), -rest))[:over]] += 1
    return quotas


def even(sizes: Index, total: int, seed: int) -> Index:
    """`total` places, as many for each group as for any other that has so many candidates, int64[G]; what does not go
    round is for those first by a seeded hash of the group. All candidates where there are not more than `total`."""
    total = min(total, int(sizes.sum()))
    low, high = 0, int(sizes.max(initial=0))
    while low < high:  # the largest level that all can be filled to
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(sizes, level).sum() <= total else (low, level - 1)
    quotas = np.minimum(sizes, low)
    room = np.flatnonzero(sizes > low)
    order = room[np.argsort(_ranks(len(sizes), seed)[room], kind="stable")]
    quotas[order[: total - int(quotas.sum())]] += 1
    return quotas


def short_groups(sizes: Index, total: int, names: Sequence[str]) -> str:
    """Said where groups have fewer candidates than an even share of `total`; else empty. sizes: int64[G]."""
    asked = total // len(sizes)
    short = np.flatnonzero(sizes < asked)
    if not len(short):
        return ""
    most = short[np.argsort(sizes[short], kind="stable")[:NAMED]].tolist()
    some = ", ".join(f"{names[g]}: {sizes[g]:,}" for g in most) + (", …" if len(short) > NAMED else "")
    then = "the others take their places" if total <= sizes.sum() else f"there are only {sizes.sum():,} in all"
    return (
        f"{len(short):,} of {len(sizes):,} groups have fewer candidates than their even share of top_count, "
        f"{asked:,} ({some}): {then}"
    )


def _ranks(n: int, seed: int) -> NDArray[np.uint64]:
    return id_hash(np.arange(n).astype(np.uint64) + id_hash(np.array([seed], np.uint64)))
