"""Stage `prepare`: any source to `images/`, read, checked and split; the unusable to `quarantine/`.

It is the one place where data of unknown quality are read; every later stage reads clean arrays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import add_digests, code_digest, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains import domain_of
from ldsaug_ray.domains.base import Array
from ldsaug_ray.domains.prepare import PreparedUnit, plan, prepare_unit
from ldsaug_ray.domains.sources.attributes import AttributeTable, load_attributes
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.sources.walk import counted
from ldsaug_ray.domains.tables import QUARANTINE
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import FACTS, Counts, UnitResult, mark, total
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.stages.shared.ahead import check_ahead, check_labelled
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.units import run_units

STAGE = declare(
    Stage(
        name="prepare",
        does="read, check, crop and resize the images; split them into train and test",
        unit="images",
        writes=("images", "quarantine/prepare"),
        sections=("data", "seed"),
        also=lambda config: (
            {} if config.domain == "images" else {"domain": [config.domain, code_digest([config.domain])]}
        ),
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Read, check and store every item of data.source.

    Raises:
        InputError: the source or its attributes cannot be used, the attributes lack one that a setting names, too
            many images are bad, or fewer than two are left.
        ImpossibleError, ConfigError: as `check_ahead`.
    """
    data, domain = job.config.data, job.domain
    source, attributes = domain.open(data), load_attributes(data)
    work = plan(domain, source, data, job.config.seed, attributes)
    check_ahead(job.config, work.n_train, work.attribute_names or (), domain.unit)
    passed_over = [f"passed over: {counted(source.passed_over)}"] if source.passed_over else []
    for sentence in (*passed_over, *work.notes):
        job.console.print(f"prepare   {sentence}", highlight=False, markup=False)
    quarantine = work.quarantine
    _check_bad(job, len(quarantine), work.n_listed, Counter(quarantine["reason"].to_pylist()))
    if len(quarantine):
        (job.run.folder("quarantine/prepare") / "listing.parquet").write_table(quarantine)

    def stop_early(results: Mapping[int, UnitResult]) -> None:
        bad = sum(r.counts.rows_quarantined for r in results.values()) + len(quarantine)
        if bad > data.max_quarantined_fraction * work.n_listed:
            reasons = _reasons(job)  # of units too that have ended since
            _check_bad(job, reasons.total(), work.n_listed, reasons)

    units = dict(enumerate(work.units))
    pool = job.pool(data.workers, "data", limit=len(units))
    results = run_units(
        job,
        "prepare",
        units,
        {n: len(u) for n, u in units.items()},
        done,
        pool,
        PrepareWorker,
        (source, job.config, attributes, job.run.root),
        unit_name="images",
        check=stop_early,
    )
    stop_early(results)
    n_train = int(sum(r.extra["train"] for r in results.values()))
    if n_train < 2:
        raise InputError(
            f"data.source = {data.source}: {n_train} usable training {domain.unit} of {work.n_listed} listed "
            f"({_reasons(job).total()} quarantined); pairs need two at least. See {job.run.folder('quarantine').uri}"
        )
    if data.attributes is not None:
        check_labelled(job.config, *([job.run.root / f for f in _files(results, split)] for split in ("train", "test")))
    alike = {r.extra.get("alike", -1.0) for r in results.values() if r.extra["train"]}
    if identical := len(alike) == 1 and -1.0 not in alike:
        job.console.print(f"prepare   {domain.words(same_picture(n_train))}", style="yellow", highlight=False)
    near, sentence = _near_duplicates(job, results)
    facts = domain.learn(_training(job, results), source, data)
    learned = tuple(facts.pop("notes", ()))
    if facts:
        job.run.folder(FACTS).write_json(facts)
    if unseen := domain.unseen(facts, data):
        results = {n: _without_unseen(job, r, work.units[n], unseen) for n, r in results.items()}
        stop_early(results)
    for note in (*([sentence] if sentence else []), *learned):
        job.console.print(f"prepare   {note}", highlight=False, markup=False)
    notes = [*work.notes, *learned]
    counts, digest = total(results.values())
    counts += Counts(work.n_listed - counts.rows_in, 0, work.n_dropped_unused, len(quarantine))
    return Outcome(
        counts,
        digest,
        {
            "train_images": n_train,
            "test_images": counts.rows_out - n_train,
            "attributes": list(work.attribute_names or ()),
            "quarantine_reasons": dict(_reasons(job).most_common()),
            **({"identical_images": True} if identical else {}),
            **({"passed_over": source.passed_over} if source.passed_over else {}),
            **({"notes": notes} if notes else {}),
            **({"near_duplicates": near} if near else {}),
        },
        processed=sum(len(u) for u in units.values()) - sum(r.counts.rows_in for r in done.values()),
    )


def same_picture(n: int) -> str:
    """The finding that all `n` training images are one, before anything is trained on it."""
    return (
        f"all {n:,} training images are the same picture: their latents will coincide, LDS will be 1 for every "
        "candidate, and there is nothing to select. Give data.source different images"
    )


class PrepareWorker:
    """One unit: decode, and write its train, test and quarantine files."""

    def __init__(self, source: Source, config: Config, attributes: AttributeTable | None, run: Location):
        self.source, self.config, self.attributes, self.run = source, config, attributes, run

    def __call__(self, unit: int, records: pa.Table) -> UnitResult:
        domain, data = domain_of(self.config), self.config.data
        prepared = prepare_unit(domain, self.source, records, data, self.attributes)
        files: list[str] = []
        rows: list[int] = []
        for split, table in (("train", prepared.train), ("test", prepared.test)):
            if len(table):
                files.append(f"images/{split}-{unit:06d}.parquet")
                rows.append(len(table))
                (self.run / files[-1]).write_table(table, use_dictionary=False)
        if len(prepared.quarantine):
            (self.run / f"quarantine/prepare/{unit:06d}.parquet").write_table(prepared.quarantine)
        return UnitResult(
            unit,
            Counts(len(records), sum(rows), 0, len(prepared.quarantine)),
            add_digests([table_digest(prepared.train), table_digest(prepared.test)]),
            tuple(files),
            tuple(rows),
            {"train": len(prepared.train), "alike": _one_item(domain.unpack(prepared.train)), **self._hashes(prepared)},
        )

    def _hashes(self, prepared: PreparedUnit) -> dict[str, str]:
        """Of the training items, then of the test items."""
        domain = domain_of(self.config)
        found = [domain.hashes(domain.unpack(t), self.config.data) for t in (prepared.train, prepared.test)]
        hashes = [h for h in found if h is not None]
        return {"hashes": np.concatenate(hashes).tobytes().hex()} if hashes else {}


def _without_unseen(
    job: Job, found: UnitResult, records: pa.Table, unseen: Callable[[Array], Sequence[str]]
) -> UnitResult:
    """The unit without those of its test items that a model of the training items cannot take: they are quarantined.

    It goes by what is stored and writes that last, so that an attempt that died here is made up for.
    """
    file = job.run.root / (name := f"images/test-{found.unit:06d}.parquet")
    if not file.exists():
        return found
    table = file.read_table()
    told = pa.array(unseen(job.domain.unpack(table)), pa.string())
    kept, bad = table.filter(pa.compute.equal(told, "")), pa.compute.not_equal(told, "")
    if len(kept) == len(table):
        return found
    keys = table["key"].filter(bad).combine_chunks()
    files = records["file"].take(pa.compute.index_in(keys, records["key"].combine_chunks()))
    quarantine = pa.table([keys, told.filter(bad), files.combine_chunks()], schema=QUARANTINE)
    (job.run.root / f"quarantine/prepare/{found.unit:06d}-unseen.parquet").write_table(quarantine)
    tables = {f: (job.run.root / f).read_table() for f in found.files if f != name} | (
        {name: kept} if len(kept) else {}
    )
    n, out = found.counts.rows_in, sum(map(len, tables.values()))
    result = replace(
        found,
        counts=Counts(n, out, 0, n - out),
        digest=add_digests(list(map(table_digest, tables.values()))),
        files=tuple(tables),
        file_rows=tuple(map(len, tables.values())),
    )
    mark(job.run.root, "prepare", result)
    if len(kept):
        file.write_table(kept, use_dictionary=False)
    else:
        file.delete()
    return result


def _near_duplicates(job: Job, results: Mapping[int, UnitResult]) -> tuple[dict[str, Any], str]:
    """What the manifest says of images that are nearly the same, and a sentence where there are any."""
    radius, units = getattr(job.config.data, "near_duplicates", None), list(results.values())
    if radius is None or not all("hashes" in r.extra for r in units):  # a version before began this stage
        return {}, ""
    from ldsaug_ray.domains.near_duplicates import find_near_duplicates

    parts = [np.frombuffer(bytes.fromhex(r.extra["hashes"]), np.uint64).reshape(-1, 2) for r in units]
    test = np.concatenate([np.arange(len(p)) >= r.extra["train"] for p, r in zip(parts, units, strict=True)])
    found = find_near_duplicates(np.concatenate(parts), test, radius)
    ends = np.cumsum([len(p) for p in parts])

    def key(row: int) -> str:
        n = int(np.searchsorted(ends, row, side="right"))
        within = row - int(ends[n]) + len(parts[n])
        split = "test" if test[row] else "train"
        within -= int(units[n].extra["train"]) if split == "test" else 0
        table = (job.run.root / f"images/{split}-{units[n].unit:06d}.parquet").read_table(["key"])
        return table["key"][within].as_py()

    examples = [[key(a), key(b)] for a, b in found.examples]
    facts = {"test_in_train": found.test_in_train, "in_train": found.in_train, "in_test": found.in_test}
    said = (
        f"by perceptual hashes, {found.test_in_train} of {int(test.sum())} test images are nearly the same as one in "
        f"train, {found.in_train} of {int((~test).sum())} training images as another, {found.in_test} test images as "
        "another"
    )
    if examples:
        said += f" (in test and in train, as {' and '.join(examples[0])}: measures of copying count such as copies)"
    return {**facts, "examples": examples}, job.domain.words(said) if any(facts.values()) else ""


def _training(job: Job, results: Mapping[int, UnitResult]) -> Iterator[Array]:
    """Batches of the training items, a stored part each."""
    for file in _files(results, "train"):
        yield job.domain.unpack((job.run.root / file).read_table([job.domain.column]))


def _files(results: Mapping[int, UnitResult], split: str) -> list[str]:
    return [f for n in sorted(results) for f in results[n].files if f.startswith(f"images/{split}-")]


def _one_item(batch: Array) -> float:
    """A number that stands for the only item of a batch; -1 where its items differ, or there is none."""
    if not len(batch) or not (batch == batch[:1]).all():
        return -1.0
    return float(int.from_bytes(hashlib.sha256(batch[0].tobytes()).digest()[:6], "big"))  # exact in a float


def _reasons(job: Job) -> Counter[str]:
    """How often each reason stands in the quarantine."""
    found: Counter[str] = Counter()
    for file in job.run.folder("quarantine/prepare").files(".parquet"):
        found.update(file.read_table(["reason"])["reason"].to_pylist())
    return found


def _check_bad(job: Job, bad: int, listed: int, reasons: Mapping[str, Any]) -> None:
    allowed = job.config.data.max_quarantined_fraction
    if bad <= allowed * listed:
        return
    common = "; ".join(f"{n} × {reason}" for reason, n in Counter(reasons).most_common(3))
    raise InputError(
        f"data.source = {job.config.data.source}: {bad} of {listed} {job.domain.unit} cannot be used so far, more than "
        f"data.max_quarantined_fraction = {allowed:g} allows ({common}). Mend or remove them "
        f"(listed in {job.run.folder('quarantine/prepare').uri}), or raise the setting"
    )
