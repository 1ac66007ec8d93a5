"""Workers of stage `score`: a range of candidates to a stored part, by sums over shards of the training latents.

`ScoreWorker` has all shards at hand; `ShardedScoreWorker` asks who holds one each (`held_shards`);
`ApproximateScoreWorker` estimates. The first two write the same files, to the bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines.base import Held
from ldsaug_ray.errors import ResourceError
from ldsaug_ray.lds import Candidates, LatentIndex, Noise, PairScores, Plan, approximate_pairs, interpolate
from ldsaug_ray.lds.approximate import OrderedLatents
from ldsaug_ray.lds.shards import Frame, Sums, Work, parents_of, part, runs_within, scores
from ldsaug_ray.run.directory import Counts, UnitResult, mark
from ldsaug_ray.stages.shared.index import approximation
from ldsaug_ray.stages.shared.job import Job

NOISY_BYTES = 2**28  # of the points of one run


def _how(config: Config) -> dict[str, Any]:
    """Tiles and device of the sums."""
    settings = config.score
    device = "cuda" if settings.workers.gpus else "cpu"
    return {"tile_rows": settings.tile_rows, "tile_latents": settings.tile_latents, "device": device}


def _rows_of(shard: np.ndarray, start: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the rows are in the shard that begins at `start`, and their latents."""
    inside = np.flatnonzero((rows >= start) & (rows < start + len(shard)))
    return inside, shard[rows[inside] - start]


class Scorer(ABC):
    """Turns a range of candidates into a stored part, one for each bandwidth in a run directory of its own; how sums
    over the latents come about is the subclass's.
    """

    def __init__(
        self, plan: Plan, keys: pa.StringArray, config: Config, sigmas: Sequence[float], runs: Sequence[Location]
    ):
        self.plan, self.keys, self.sigmas, self.runs = plan, keys, tuple(sigmas), tuple(runs)
        self.settings = config.score

    @abstractmethod
    def score(self, pairs: np.ndarray) -> PairScores:
        """Scores of the pairs, arrays [P, A, S]; in a plan of blocks they are whole rows of one."""

    def score_noisy(self, some: Candidates, noise: Noise) -> PairScores:
        """Scores of candidates off the line, arrays [M, 1, S]."""
        raise NotImplementedError  # settings refuse it for estimates

    def __call__(self, unit: int, bounds: pa.Table) -> UnitResult:
        settings = self.settings
        start, stop = bounds["start"][0].as_py(), bounds["stop"][0].as_py()
        block, alphas = settings.block_shape, settings.plan_alphas
        whole = len(alphas) * (1 if block is None else block[1])  # whole pairs, and whole rows of a block
        plan = self.plan.candidates(start, start + -(-(stop - start) // whole) * whole)
        first = slice(0, None, len(alphas))  # units start at a pair's first alpha
        if self.plan.noise is not None:
            found = self.score_noisy(plan, self.plan.noise)
        else:
            found = self.score(np.stack([plan.i[first], plan.j[first]], axis=1))
        ids = slice(0, stop - start)
        columns = {
            "candidate": plan.id[ids],
            "parent_i": self.keys.take(pa.array(plan.i[ids])),
            "parent_j": self.keys.take(pa.array(plan.j[ids])),
            "alpha": plan.alpha[ids],
        }
        # of an interval too, where there is one
        arrays = {f.name: x for f in fields(found) if isinstance(x := getattr(found, f.name), np.ndarray)}
        results = []
        for s, run in enumerate(self.runs):
            numbers = {name: array[..., s].reshape(-1)[ids] for name, array in arrays.items()}
            results.append(_stored(unit, run, {**columns, **numbers}))
        for run, result in zip(self.runs[1:], results[1:], strict=True):
            mark(run, "score", result)
        return results[0]  # whose marker comes last, and stands for all of them


def _stored(unit: int, run: Location, columns: Mapping[str, Any]) -> UnitResult:
    table = pa.table(dict(columns))
    file = f"scores/part-{unit:06d}.parquet"
    (run / file).write_table(table)
    extra = {}
    if "log_lds_low" in columns:
        extra["interval"] = float(np.median(columns["log_lds_high"] - columns["log_lds_low"]))
    return UnitResult(unit, Counts(len(table), len(table)), table_digest(table), (file,), (len(table),), extra)


class _ExactScorer(Scorer):
    """Adds up sums over shards; where these are is the subclass's."""

    @abstractmethod
    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Some of the training latents, float32[R, d]."""

    @abstractmethod
    def parts(self, work: Work) -> Iterable[Sums]:
        """The sums of every shard, in order."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """d."""

    def score(self, pairs: np.ndarray) -> PairScores:
        """Exact scores of the pairs, in runs whose parents' vectors keep within memory in any dimension."""
        if self.settings.block_shape is not None:
            return self._score(pairs)
        runs = [self._score(pairs[run]) for run in runs_within(pairs, self.latent_dim)]
        return PairScores(*(np.concatenate([getattr(r, f.name) for r in runs]) for f in fields(PairScores)))

    def score_noisy(self, some: Candidates, noise: Noise) -> PairScores:
        """Each at its own point; runs of them keep within memory."""
        found, step = [], max(1, NOISY_BYTES // (4 * self.latent_dim))
        for start in range(0, len(some), step):
            run = slice(start, start + step)
            pairs = np.stack([some.i[run], some.j[run]], axis=1)
            rows, local, _ = parents_of(pairs)
            vectors = self.vectors(rows)
            points = interpolate(
                vectors, local[:, 0], local[:, 1], some.alpha[run], self.settings.interpolation, noise, some.id[run]
            )
            work = Work.at_points(pairs, vectors, local, points, self.sigmas)
            found.append(scores(work, self.parts(work), self.plan.n))
        return PairScores(*(np.concatenate([getattr(r, f.name) for r in found]) for f in fields(PairScores)))

    def _score(self, pairs: np.ndarray) -> PairScores:
        settings = self.settings
        block = settings.block_shape
        rows, local, shape = parents_of(pairs, None if block is None else block[1])
        work = Work.of(rows, self.vectors(rows), local, settings.alphas, self.sigmas, settings.interpolation, shape)
        return scores(work, self.parts(work), self.plan.n)


class ScoreWorker(_ExactScorer):
    """Has all shards at hand."""

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        frame: Frame,
        plan: Plan,
        keys: pa.StringArray,
        config: Config,
        *rest: Any,
    ):
        self.shards, self.frame, self.how = shards, frame, _how(config)
        self.starts = np.cumsum([0, *(len(s) for s in self.shards)])
        super().__init__(plan, keys, config, *rest)

    @property
    def latent_dim(self) -> int:
        return int(self.shards[0].shape[1])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Some of the training latents."""
        out = np.empty((len(rows), self.latent_dim), np.float32)
        for start, shard in zip(self.starts, self.shards, strict=False):
            inside, vectors = _rows_of(shard, int(start), rows)
            out[inside] = vectors
        return out

    def parts(self, work: Work) -> Iterable[Sums]:
        """The sums of every shard, in order."""
        for start, shard in zip(self.starts, self.shards, strict=False):
            yield part(self.frame, work, shard, int(start), **self.how)


class ShardedScoreWorker(_ExactScorer):
    """Asks who holds the shards."""

    def __init__(self, shards: Held, latent_dim: int, *rest: Any):
        self.shards, self._latent_dim = shards, latent_dim
        super().__init__(*rest)

    @property
    def latent_dim(self) -> int:
        return self._latent_dim

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Some of the training latents; each comes from the one shard that has it."""
        found = self.shards.ask("vectors", rows)
        out = np.empty((len(rows), self.latent_dim), np.float32)
        for inside, vectors in found:
            out[inside] = vectors
        return out

    def parts(self, work: Work) -> Iterable[Sums]:
        """The sums of every shard, in order."""
        found: list[Sums] = self.shards.ask("part", work)
        return found


class ApproximateScoreWorker(Scorer):
    """Has all latents and an index over them at hand."""

    def __init__(
        self,
        train: np.ndarray,
        index: np.ndarray,
        structure: dict[str, int | str],
        plan: Plan,
        keys: pa.StringArray,
        config: Config,
        *rest: Any,
    ):
        self.train, self.approximation = train, approximation(config)
        self.latents = OrderedLatents.of(train, self.approximation.seed)
        self.index = LatentIndex.of(index, structure, self.latents.frame)
        super().__init__(plan, keys, config, *rest)

    def score(self, pairs: np.ndarray) -> PairScores:
        """Estimates and intervals."""
        settings = self.settings
        return approximate_pairs(
            self.train,
            pairs,
            settings.alphas,
            self.sigmas,
            approximation=self.approximation,
            index=self.index,
            latents=self.latents,
            interpolation=settings.interpolation,
            tile_rows=settings.tile_rows,
            tile_latents=settings.tile_latents,
        )


class Shard:
    """One shard of the training latents."""

    def __init__(self, latents: np.ndarray, start: int, frame: Frame, config: Config):
        self.latents, self.start, self.frame, self.how = latents, start, frame, _how(config)

    def vectors(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the rows are here, and their latents."""
        return _rows_of(self.latents, self.start, rows)

    def part(self, work: Work) -> Sums:
        """Sums over this shard."""
        return part(self.frame, work, self.latents, self.start, **self.how)


def held_shards(job: Job, shards: Sequence[Any], frame: Frame) -> AbstractContextManager[Held]:
    """The shards, spread over the machines."""
    settings = job.config.score
    # A trace of a CPU keeps them off nodes that offer none. With more, those of a lost node might find no place.
    asked = settings.workers.model_copy(update={"count": len(shards), "cpus": 0.01})
    try:
        pool = job.pool(asked, "score")
    except ResourceError as e:
        raise ResourceError(
            f"{e}. {len(shards)} shards of the latents are {len(shards)} actors: a larger score.shard_latents makes "
            "fewer, a fraction as score.workers.gpus lets some share a GPU"
        ) from None
    starts = range(0, len(shards) * settings.shard_latents, settings.shard_latents)
    given = [(shard, start, frame, job.config) for shard, start in zip(shards, starts, strict=True)]
    return job.engine.hold(Shard, given, pool, max(1, math.ceil(settings.workers.cpus)))
