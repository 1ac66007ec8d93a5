"""Stage `prepare`: any image source to `images/`, decoded, cropped, resized, split; the unusable to `quarantine/`.

It is the one place where images of unknown quality are read; every later stage reads clean arrays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ldsaug_ray.common.digest import add_digests, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains.images import (
    AttributeTable,
    Source,
    load_attributes,
    open_source,
    plan,
    prepare_unit,
    require_attribute,
)
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.directory import Counts, UnitResult, total
from ldsaug_ray.stages.job import Job
from ldsaug_ray.stages.outcome import Outcome
from ldsaug_ray.stages.units import run_units


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Read, check and store every image of data.source.

    Raises:
        InputError: the source or its attributes cannot be used, the attributes lack one that is to be evaluated, too
            many images are bad, or fewer than two are left.
    """
    data = job.config.data
    source, attributes = open_source(data), load_attributes(data)
    work = plan(source, data, job.config.seed, attributes)
    if data.attributes is not None:  # else told after hours of training
        for name in job.config.evaluate.attributes:
            require_attribute(name, work.attribute_names or ())
    if source.passed_over:
        listed = ", ".join(f"{n} {name}" for name, n in source.passed_over.items())
        job.console.print(f"prepare   passed over, by their names no images: {listed}", highlight=False)
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
    counts, digest = total(results.values())
    counts += Counts(work.n_listed - counts.rows_in, 0, work.n_dropped_unused, len(quarantine))
    n_train = int(sum(r.extra["train"] for r in results.values()))
    if n_train < 2:
        raise InputError(
            f"data.source = {data.source}: {n_train} usable training images of {work.n_listed} listed "
            f"({counts.rows_quarantined} quarantined); pairs need two at least. See {job.run.folder('quarantine').uri}"
        )
    alike = {r.extra.get("alike", -1.0) for r in results.values() if r.extra["train"]}
    if identical := len(alike) == 1 and -1.0 not in alike:
        job.console.print(f"prepare   {same_picture(n_train)}", style="yellow", highlight=False)
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
        prepared = prepare_unit(self.source, records, self.config.data, self.attributes)
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
            {"train": len(prepared.train), "alike": _one_image(prepared.train)},
        )


def _one_image(table: pa.Table) -> float:
    """A number that stands for the only image of a table; -1 where its images differ, or there is none."""
    images = table["image"]
    if not len(images) or not pc.all(pc.equal(images, images[0])).as_py():
        return -1.0
    return float(int.from_bytes(hashlib.sha256(images[0].as_buffer()).digest()[:6], "big"))  # exact in a float


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
        f"data.source = {job.config.data.source}: {bad} of {listed} images cannot be used so far, more than "
        f"data.max_quarantined_fraction = {allowed:g} allows ({common}). Mend or remove them "
        f"(listed in {job.run.folder('quarantine/prepare').uri}), or raise the setting"
    )
