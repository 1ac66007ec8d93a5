"""Images in WebDataset tars: a sample is the run of members that share a key, the path up to its name's first dot.

Listing reads the tar headers alone; reading fetches each image by (offset, length). Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import CommonData
from ldsaug_ray.domains.sources.base import (
    LARGEST_LABEL,
    Attributes,
    Reading,
    Source,
    ahead,
    attributes_from,
    check_names,
    composed,
    label,
    listing,
    locate,
    shard_keys,
    sign,
    unreadable,
)
from ldsaug_ray.domains.sources.samples import choose, is_item
from ldsaug_ray.domains.sources.tar_members import DAMAGE, Contents, Member, is_compressed, open_tar, scan_tar
from ldsaug_ray.domains.sources.walk import IMAGES, Files, counted
from ldsaug_ray.errors import InputError, StorageError

_SAMPLES_LOOKED_AT = 64  # JSON members of the first tar from which the attributes' names are judged


@dataclass(frozen=True)
class _Json:
    """The JSON members of one tar."""

    members: Sequence[Member]
    of_image: Mapping[tuple[int, str], Member]  # (an image's offset, its key) -> its JSON member
    kept: Mapping[int, bytes]  # offset -> bytes, of those that are held already

    @classmethod
    def of(cls, contents: Contents, files: Files) -> _Json:
        """`x.1.json` belongs to `x.1.png`, whatever the key of that is; `x.json` to all `x.….png` without their own."""
        members = [m for m in contents.members if _is_json(m.extension)]
        named = {composed(m.stem): m for m in members} | {m.stem: m for m in members}
        of_image: dict[tuple[int, str], Member] = {}
        for image in (m for m in contents.members if is_item(m, files)):
            stem = image.stem
            while (found := named.get(stem) or named.get(composed(stem))) is None and stem != image.key:
                stem = stem.rpartition(".")[0]
            if found:
                for key in (image.key, image.stem, image.name):
                    of_image.setdefault((image.offset, key), found)
        return cls(members, of_image, contents.kept)


class WebDatasetSource(Source):
    """Images in tar files, plain or compressed; attributes from the `.json` member with the image's key."""

    def __init__(
        self, root: Location, files: Sequence[str], data: CommonData, passed_over: Mapping[str, int], of: Files = IMAGES
    ) -> None:
        """`files`: relative to `root`, sorted; "" where root is the one tar.

        Raises:
            InputError: with data.attributes=columns, when the first tar has no such attributes.
        """
        self.uri = root.uri
        self.root, self.of = root, of
        self.files = tuple(files)
        self.before = dict(zip(files, shard_keys([file or root.name for file in files]).values(), strict=True))
        self.member = data.member
        self.shard_in_key = data.shard_in_key
        self.passed_over = self._beside = dict(passed_over)
        self.wants_json = data.attributes == "columns"
        if self.wants_json:
            self.attribute_names = self._find_attributes(data.attribute_names)

    def list(self) -> pa.Table:
        """See `Source.list`; index is the offset of the image's bytes in its tar, as it is when decompressed.

        A tar cut short or damaged keeps what is readable; where it breaks stands a record that cannot be read.

        Raises:
            InputError: a file is no tar or has no whole image, no member is an image, or data.member names none.
        """
        scanned = {file: self._scan(file) for file in self.files}
        chosen = choose({f: c.members for f, c in scanned.items()}, self.member, self.uri, self.of)
        self._tell(scanned.values(), chosen.others, chosen.passed_over)
        rows: list[tuple[str, str, int, int]] = []
        for file, contents in scanned.items():
            images, size = chosen.images[file], contents.size
            cut = [m for m in images if m.offset + m.length > size]
            if (contents.broken_at is not None or cut) and len(cut) == len(images):
                raise InputError(
                    f"{self._where(file)}: the tar is truncated or damaged and no {self.of.item} in it is whole; "
                    "write it again or remove it"
                )
            rows += [(self._key(m.key, file), file, m.offset, m.length) for m in images]
            if contents.broken_at is not None and not cut:  # else the member cut short is the record
                name = locate(self.root, file).name
                rows.append((f"{name}#{contents.broken_at}", file, contents.broken_at, -1))
        if not rows:
            beside = f"; passed over: {counted(self.passed_over)}" if self.passed_over else ""
            raise InputError(
                f"{self.uri}: no tar member has {self.of.an}'s extension ({', '.join(self.of.extensions)}){beside}"
            )
        keys, files, index, length = zip(*sorted(rows, key=lambda r: (r[1], r[2])), strict=True)
        return listing(keys, files, index, length)

    def _tell(self, scanned: Iterable[Contents], others: Counter[str], images: Counter[str]) -> None:
        if self.wants_json:
            others.pop(".json", None)
        left_out = sum((c.left_out for c in scanned), Counter[str]())
        further = Counter({f"further {self.of.unit} of samples ({suffix})": n for suffix, n in images.items()})
        self.passed_over = {**self._beside}
        for found in (further, others, left_out):
            for what, n in found.most_common():
                self.passed_over[what] = self.passed_over.get(what, 0) + n
        if images and self.member is None:
            self.notes = (
                f"samples of {self.uri} have several {self.of.unit}, of which one is taken; data.member = "
                f"{' or '.join(sorted(images)[:4])} takes another, data.member = all takes each as a sample",
            )

    def _key(self, key: str, file: str) -> str:
        return f"{self.before[file]}/{key}" if self.shard_in_key else key

    def read(self, records: pa.Table) -> Iterator[Reading]:
        """See `Source.read`."""
        columns = [records[name].to_pylist() for name in ("key", "file", "index", "length")]
        # A compressed tar is read forwards: what is fetched ahead out of order would send it back to its start.
        remote = not self.root.is_local and not any(self._is_compressed(f) for f in dict.fromkeys(columns[1]))
        yield from ahead(self._read_one, zip(*columns, strict=True), remote=remote)

    def _read_one(self, record: tuple[str, str, int, int]) -> Reading:
        key, file, offset, length = record
        if length < 0:
            return None, f"damaged tar: no header at byte {offset}, the members after it are lost", None
        try:
            payload = self._bytes(file, offset, length)
            if len(payload) < length:
                return None, f"truncated tar: {len(payload)} of the {self.of.item}'s {length} bytes are there", None
            return payload, None, self._attributes(file, key, offset)
        except (OSError, StorageError) as e:
            return None, unreadable(e), None
        except DAMAGE as e:
            return None, f"truncated or damaged compressed tar: {e}", None

    def _attributes(self, file: str, key: str, offset: int) -> Attributes | None:
        if not self.attribute_names:
            return None
        if self.shard_in_key:
            key = key.removeprefix(self._key("", file))
        member = self._json_members(file).of_image.get((offset, key))
        values = self._json(file, member) if member else {}
        return attributes_from({name: values.get(name) for name in self.attribute_names}, self.categorical)

    def _json(self, file: str, member: Member) -> dict[str, object]:
        """The JSON object of a member, accents in its names composed; empty where it is no object."""
        try:
            data = self._json_members(file).kept.get(member.offset)
            value = json.loads(self._bytes(file, member.offset, member.length) if data is None else data)
        except ValueError:  # bad JSON or bad UTF-8: the image counts as one without attributes
            return {}
        return {composed(name): v for name, v in value.items()} if isinstance(value, dict) else {}

    def _json_members(self, file: str) -> _Json:
        cache: dict[str, _Json] = self.__dict__.setdefault("_cached_json", {})
        if file not in cache:
            contents = self._scan(file)
            if len(cache) >= 2:
                cache.pop(next(iter(cache)), None)
            cache[file] = _Json.of(contents, self.of)
        return cache[file]

    def _find_attributes(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """data.attribute_names, or the JSON keys whose value is bool, -1, 0, 1 or null in all samples looked at."""
        binary: dict[str, bool] = {}
        labels: dict[str, bool] = {}
        for member in self._json_members(self.files[0]).members[:_SAMPLES_LOOKED_AT]:
            for name, value in self._json(self.files[0], member).items():
                binary[name] = binary.get(name, True) and (value is None or sign(value) is not None)
                labels[name] = labels.get(name, True) and (value in (None, -1) or label(value) is not None)
        where = self._where(self.files[0])
        check_names(names, binary, f"no .json member of {where} has")
        for name in names or ():
            if not binary[name] and not labels[name]:
                raise InputError(
                    f"data.attribute_names: {name!r} in {where} has values that are not -1, 0, 1 or bool, and no "
                    f"label, 0 to {LARGEST_LABEL}"
                )
        self.categorical = frozenset(name for name in names or () if not binary[name])
        found = names or tuple(name for name, is_binary in binary.items() if is_binary)
        if not found:
            raise InputError(
                f"data.attributes = columns: {where} has no .json members with values of -1, 0, 1, true or false; "
                "set data.attributes to a file in CelebA's layout, or to null"
            )
        return found

    def _where(self, file: str) -> str:
        return locate(self.root, file).uri

    def _is_compressed(self, file: str) -> bool:
        known: dict[str, bool] = self.__dict__.setdefault("_compressed", {})
        if file not in known:
            known[file] = is_compressed(locate(self.root, file))
        return known[file]

    def _open(self, file: str) -> tuple[Any, int | None]:
        """A tar and its size, kept open: the next record is most likely in the same one."""
        kept: dict[str, tuple[Any, int | None]] = self.__dict__.setdefault("_handles", {})
        opened = kept.get(file)
        if opened is None:
            opened = open_tar(locate(self.root, file))
            if len(kept) >= 2:  # no close: another thread may still read from it
                kept.pop(next(iter(kept)), None)
            kept[file] = opened
        return opened

    def _bytes(self, file: str, offset: int, length: int) -> bytes:
        """Fewer bytes than `length` where the file ends before."""
        handle, size = self._open(file)
        try:
            if size is None:
                handle.seek(offset)
                return handle.read(length)
            available = max(0, min(length, size - offset))  # a damaged header may claim terabytes
            return handle.read_at(available, offset) if available else b""
        except Exception:
            self.__dict__["_handles"].pop(file, None)  # a decompressor is of no use after an error
            raise

    def _scan(self, file: str) -> Contents:
        return scan_tar(locate(self.root, file), _is_json if self.wants_json else lambda _: False)


def _is_json(extension: str) -> bool:
    return extension.rpartition(".")[2].lower() == "json"
