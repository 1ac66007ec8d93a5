"""Which members of tars are images, and under which key: a sample may have several files that end like images.

`3.jpg` is the image of sample 3. Files that differ only by numbers (`7.0.png`, `7.1.png`) are samples of their own.
Of other kinds (`x.left.png`, `x.right.png`; `x.png`, `x.seg.png`) or formats (`x.jpg`, `x.png`) one is the image, the
same for all samples, and the rest is passed over; data.member chooses.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ldsaug_ray.domains.sources.base import did_you_mean
from ldsaug_ray.domains.sources.tar_members import Member
from ldsaug_ray.domains.sources.walk import Files, endings
from ldsaug_ray.errors import InputError

ALL = "all"

_Rank = tuple[bool, bool, int, int]


@dataclass(frozen=True)
class Chosen:
    """The image members of each tar, with their keys, in their order; and what else was there."""

    images: Mapping[str, tuple[Member, ...]]
    others: Counter[str]  # ending -> members that are no images
    passed_over: Counter[str]  # suffix -> image members that are not taken


def is_item(member: Member, of: Files) -> bool:
    """Whether it is one by its ending."""
    return member.extension.rpartition(".")[2].lower() in of.extensions


def choose(members: Mapping[str, Sequence[Member]], wanted: str | None, where: str, of: Files) -> Chosen:
    """See the module's opening sentences; the members of all tars are judged together.

    Args:
        members: by tar.
        wanted: data.member: a suffix (`left.png`, `left`, `png`), `all`, or None.

    Raises:
        InputError: `wanted` is no suffix of any image.
    """
    images = {file: [m for m in found if is_item(m, of)] for file, found in members.items()}
    others = endings(m.name for found in members.values() for m in found if not is_item(m, of))
    if wanted not in (None, ALL):
        suffixes = Counter(m.extension.lower() for found in images.values() for m in found)
        if not any(wanted.lower() in (s, _suffix(s)) for s in suffixes):
            raise InputError(
                f"data.member = {wanted}: no {of.item} in {where} has this suffix; "
                f"{did_you_mean(str(wanted), suffixes)}"
            )
    numbered, ranks = _numbered(images.values()), _ranks(images.values())
    formats, aside = _formats(images.values())
    samples = {file: list(_by_key(found)) for file, found in images.items()}
    never: set[str] = set()  # kinds that yield to another: a mask is no image because its sample lacks one
    if wanted is None:
        for group in (g for groups in samples.values() for g in groups):
            never |= {_kind(m) for m in group} - {_kind(m) for m in _of_sample(group, wanted, ranks, formats)}
    taken: dict[str, tuple[Member, ...]] = {}
    passed_over: Counter[str] = Counter()
    for file, groups in samples.items():
        mine: list[Member] = []
        for group in groups:
            chosen = [m for m in _of_sample(group, wanted, ranks, formats) if _kind(m) not in never]
            if wanted is None:
                chosen = [m for m in chosen if _format(m) not in aside]
            passed_over.update(m.extension.lower() for m in group if m not in chosen)
            mine += [_named(m, numbered, wanted == ALL and len(group) > 1) for m in chosen]
        taken[file] = tuple(sorted(mine, key=lambda m: m.offset))
    return Chosen(taken, others, passed_over)


def _by_key(members: Iterable[Member]) -> Iterable[list[Member]]:
    of_key: dict[str, list[Member]] = defaultdict(list)
    for m in members:
        of_key[m.key].append(m)
    return of_key.values()


def _suffix(extension: str) -> str:
    """What stands between a name's first and last dot, in lower case."""
    return extension.rpartition(".")[0].lower()


def _kind(member: Member) -> str:
    """The suffix with every number as 0: `0` for 7 and 12, `view0` for view1 and view2."""
    return re.sub(r"\d+", "0", _suffix(member.extension))


def _is_pure(kind: str) -> bool:
    """Numbers alone, or nothing."""
    return re.fullmatch(r"[0.]*", kind) is not None


def _numbered(images: Iterable[Sequence[Member]]) -> set[str]:
    """Kinds whose numbers tell samples apart: somewhere, one key has several, or one beside `x.png`."""
    first: dict[tuple[str, str], str] = {}
    found: set[str] = set()
    for members in images:
        for m in members:
            kind = _kind(m)
            family = "" if _is_pure(kind) else kind
            other = first.setdefault((m.key, family), m.extension)
            if _suffix(other) != _suffix(m.extension):
                found |= {kind, _kind(replace(m, extension=other))}
    return found


def _ranks(images: Iterable[Sequence[Member]]) -> dict[str, _Rank]:
    """Kind -> its rank as the image of a sample, lowest first: `x.png`, numbers alone, the commonest, the first."""
    counts = Counter(_kind(m) for members in images for m in members)
    return {kind: (kind != "", not _is_pure(kind), -n, place) for place, (kind, n) in enumerate(counts.items())}


def _format(member: Member) -> tuple[str, str]:
    return _kind(member), member.extension.rpartition(".")[2].lower()


def _formats(images: Iterable[Sequence[Member]]) -> tuple[dict[tuple[str, str], tuple[int, int]], set[tuple[str, str]]]:
    """(rank of each format that stands beside another, lowest first: the commonest there, the first; those that yield).

    What yields is no image where it stands alone either, as a mask whose image is lacking, unless it mostly does:
    then samples have the one format or the other.
    """
    alone: Counter[tuple[str, str]] = Counter()
    beside: Counter[tuple[str, str]] = Counter()
    several: set[tuple[tuple[str, str], ...]] = set()
    for members in images:
        of_name: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        for m in members:
            of_name[m.stem][_format(m)] = None
        for found in of_name.values():
            (beside if len(found) > 1 else alone).update([*found])
            if len(found) > 1:
                several.add(tuple(found))
    ranks = {form: (-n, place) for place, (form, n) in enumerate(beside.items())}
    first = {min(found, key=ranks.__getitem__) for found in several}
    return ranks, {form for form, n in beside.items() if form not in first and n > alone[form]}


def _of_sample(
    group: Sequence[Member],
    wanted: str | None,
    ranks: Mapping[str, _Rank],
    formats: Mapping[tuple[str, str], tuple[int, int]],
) -> list[Member]:
    """The images among the members of one key."""
    if wanted == ALL:
        return list(group)
    if wanted is not None:
        return [m for m in group if wanted.lower() in (m.extension.lower(), _suffix(m.extension))]
    best = min((_kind(m) for m in group), key=ranks.__getitem__)
    pure = not ranks[best][1]  # `x.png` and `x.1.png` are both samples
    chosen: dict[str, Member] = {}
    twice: list[Member] = []  # one name twice: a duplicate key, which is quarantined where all keys are known
    for m in sorted(group, key=lambda m: formats.get(_format(m), (0, 0))):
        if _kind(m) == best or (pure and not ranks[_kind(m)][1]):
            first = chosen.setdefault(_suffix(m.extension), m)
            if first is not m and first.extension == m.extension:
                twice.append(m)
    return [*chosen.values(), *twice]


def _named(member: Member, numbered: set[str], whole: bool) -> Member:
    """With its suffix in its key where that tells samples apart; `whole`: with its ending too."""
    suffix = member.extension if whole else member.extension.rpartition(".")[0]
    if suffix and (whole or _kind(member) in numbered):
        return replace(member, key=f"{member.key}.{suffix}")
    return member
