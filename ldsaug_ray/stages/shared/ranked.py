"""Scores of every candidate by a `select.rank` that decodes: a unit a part of `scores/`, kept below `ranked/`.

They are known by the rank, the model's weights and the scores, so that other thresholds decode nothing again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import code_digest, fingerprint, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import ConfigError, InputError, MissingStageError, failing
from ldsaug_ray.lds import Noise
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.latents import Latents, read_latents
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.selection.rank import RANK, RANKS
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.runner import ensure
from ldsaug_ray.stages.shared.units import run_units

RANKED = declare(Stage(name="ranked", does="rank what is decoded", unit="candidates", writes=("parts",), role="kept"))
NEEDED = ("candidate", "parent_i", "parent_j", "alpha")


def _place(run: RunDir, rank: str) -> tuple[RunDir, str]:
    """Where the scores of a rank are kept, and what identifies them."""
    read = [run.require(stage, "digest") for stage in ("train", "encode", "score")]
    identity = fingerprint([rank, *read, *filter(None, [code_digest([rank])])])
    return RunDir(run.folder(f"ranked/{fingerprint(rank)[:12]}")), identity


def check_rank(config: Config) -> None:
    """Raises ConfigError where a rank says nothing of this codec."""
    from ldsaug_ray.models import CODECS

    select = config.select
    if select.rule.judged(select) and select.ranking.loss and CODECS.get(config.vae.kind).exact:
        raise ConfigError(
            f"select.rank: {select.rank}: vae.kind: {config.vae.kind} loses nothing, so that all candidates are "
            "alike; give lds, or a rank of your own"
        )


def ensure_ranked(job: Job) -> None:
    """Decode and judge every candidate, where `select.rank` asks for it and it is not done."""
    select = job.config.select
    if not select.rule.judged(select):
        return
    check_rank(job.config)
    folder, identity = _place(job.run, select.rank)

    def judge(inner: Job, done: Mapping[int, UnitResult]) -> Outcome:
        parts = [(f"scores/{f.name}", f.name) for f in job.run.folder("scores").files(".parquet")]
        rows = dict(job.run.finished_parts("score"))
        pool = job.pool(job.config.decode.workers, "decode", limit=len(parts))
        noise = Noise.kept(job.run.require("score"), job.config.seed)
        results = run_units(
            inner,
            "ranked",
            {n: pa.table({"file": [name]}) for n, (_, name) in enumerate(parts)},
            {n: rows[file] for n, (file, _) in enumerate(parts)},
            done,
            pool,
            RankWorker,
            (
                job.engine.share(read_latents(job.run, "train")),
                job.run.root,
                inner.run.root,
                job.config,
                pool.gpus > 0,
                noise,
            ),
            unit_name="candidates",
        )
        return Outcome.of(results.values())

    ensure(replace(job, run=folder), "ranked", identity, judge)


class RankWorker:
    """Holds the model and the training latents; a part of the scores a call, `decode.part_rows` at a time."""

    def __init__(
        self, latents: Latents, run: Location, out: Location, config: Config, gpu: bool, noise: Noise | None
    ) -> None:
        from ldsaug_ray.models import load_vae

        self.codec = load_vae(run / "train/vae.safetensors", "cuda" if gpu else "cpu")
        self.latents, self.run, self.out, self.config, self.noise = latents, run, out, config, noise

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        settings = self.config.decode
        rank = self.config.select.rank
        judge = RANKS.get(rank).judge
        assert judge is not None
        made = (self.run / f"scores/{part['file'][0].as_py()}").read_table([*NEEDED])
        found = []
        for start in range(0, len(made), settings.part_rows):
            some = made.slice(start, settings.part_rows)
            z = self.latents.between(some, self.config.score.interpolation, self.noise)
            with failing(f"select.rank {rank}", own=":" in rank):
                found.append(np.asarray(judge(self.codec, z, settings.batch_size), np.float64))
            if found[-1].shape != (len(z),) or np.isnan(found[-1]).any():
                raise InputError(f"select.rank: {rank} must give each candidate a number, not NaN")
        table = pa.table({"candidate": made["candidate"], RANK: np.concatenate(found)})
        file = f"parts/{part['file'][0].as_py()}"
        (self.out / file).write_table(table)
        return UnitResult(unit, Counts(len(made), len(made)), table_digest(table), (file,), (len(made),))


def with_rank(config: Config, run: RunDir, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The parts of `scores/`, in their order, with the column of `select.rank` where it is not LDS.

    Raises:
        MissingStageError: the candidates have not been judged.
        InputError: those that were are others.
    """
    if not config.select.rule.judged(config.select):
        yield from tables
        return
    folder, identity = _place(run, config.select.rank)
    if not folder.is_complete("ranked", identity):
        raise MissingStageError(f"{run.root.uri}: select.rank: {config.select.rank}: run `ldsaug select` with it first")
    parts = iter(folder.folder("parts").files(".parquet"))
    for table in tables:
        judged = next(parts).read_table()
        if not judged["candidate"].equals(table["candidate"]):
            raise InputError(f"{folder.root.uri}: the candidates are not those of scores/; delete this folder")
        yield table.append_column(RANK, judged[RANK])
