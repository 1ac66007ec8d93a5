"""Stage `score`: latents to `scores/`, a row for every candidate, and `held_out/`, one for every test latent.

Candidates are cut into units, and training latents into shards, by the settings, never by how many workers there are.
The latents are either replicated (every worker reads them, without a copy of its own) or sharded (each shard lives in
one place; a unit's pairs are sent to all of them and the sums merged in order). The scores are the same to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import add_digests, digest_text
from ldsaug_ray.config import Config, Sigma
from ldsaug_ray.run.directory import RunDir, UnitResult
from ldsaug_ray.run.latents import Latents, in_memory, read_latents
from ldsaug_ray.run.pipeline import STAGES, Stage, declare
from ldsaug_ray.stages.shared.held_out import score_held_out
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.units import In, run_units, until_listed

SENDERS = 4  # units in flight where the latents are sharded: one is gathered or written while others are summed

STAGE = declare(
    Stage(
        name="score",
        does="Latent Density Score of every candidate",
        unit="candidates",
        needs=("encode",),
        writes=("scores", "held_out"),
        sections=("score", "seed"),
        code=lambda config: (config.score.sigma.rule,),
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Score every candidate of the plan.

    Raises:
        InputError: a latent is not finite (the message names its key), or there are too few for the plan.
    """
    (outcome,) = _outcomes(job, done, [job.config.score.sigma], [job.run])
    return outcome


def check(job: Job) -> None:
    """Raises what `run` would of too few latents for the plan, before earlier scores are deleted."""
    from ldsaug_ray.lds import check_plan

    if prepared := job.run.entry("prepare"):
        check_plan(int(prepared["train_images"]), job.config.score, job.config.seed)


def score_at(job: Job, targets: Sequence[tuple[Config, RunDir]]) -> None:
    """Bring stage `score` of several run directories to completion in one pass over the latents.

    A candidate's distances are taken once for all bandwidths. What is done already in all of them is not done again.

    Args:
        targets: settings that differ from the job's in `score.sigma` alone, and where their scores go.

    Raises:
        InputError: as `run`.
    """
    digests = {"encode": job.run.require("encode", "digest")}
    left = []
    for config, run in targets:
        identity = STAGES["score"].fingerprint(config, digests)
        if not run.is_complete("score", identity):
            left.append((config, run, identity))
    if not left:
        return
    finished = [run.begin("score", identity) for _, run, identity in left]
    done = {n: r for n, r in finished[0].items() if all(n in other for other in finished)}
    started = time.monotonic()
    runs = [run for _, run, _ in left]
    outcomes = _outcomes(job, done, [config.score.sigma for config, _, _ in left], runs)
    seconds = time.monotonic() - started
    for (_, run, identity), outcome in zip(left, outcomes, strict=True):
        facts = {"bandwidths_at_once": len(left), **outcome.facts}
        run.finish("score", identity, outcome.counts, outcome.digest, seconds, outcome.counts.rows_in, **facts)


def _outcomes(
    job: Job, done: Mapping[int, UnitResult], rules: Sequence[Sigma], runs: Sequence[RunDir]
) -> list[Outcome]:
    """Of each bandwidth; the first run directory's markers say which units are done."""
    with TemporaryDirectory(prefix="ldsaug-") as folder:
        placement = ""

        def allocate(shape: tuple[int, int]) -> np.ndarray:
            nonlocal placement
            placement = _placement(job, 4 * shape[0] * shape[1])
            if job.config.score.backend == "faiss":  # searches among all latents
                placement = "replicated"
            if placement == "replicated":
                return in_memory(shape)
            return np.memmap(Path(folder) / "latents", np.float32, "w+", shape=shape)  # not in this process's memory

        return _score(job, done, read_latents(job.run, "train", allocate), placement, rules, runs)


def _score(
    job: Job,
    done: Mapping[int, UnitResult],
    latents: Latents,
    placement: str,
    rules: Sequence[Sigma],
    runs: Sequence[RunDir],
) -> list[Outcome]:
    from ldsaug_ray.lds import Plan, n_pairs_for, resolve_sigma, validate_latents
    from ldsaug_ray.lds.shards import Frame, cut
    from ldsaug_ray.stages.shared.index import open_index
    from ldsaug_ray.stages.shared.scorers import (
        ApproximateScoreWorker,
        Scorer,
        ScoreWorker,
        ShardedScoreWorker,
        held_shards,
    )

    settings = job.config.score
    train = latents.z
    validate_latents(train, keys=latents.keys.to_pylist())
    plan = Plan.of(train, settings, job.config.seed)
    chosen = [resolve_sigma(train, settings.model_copy(update={"sigma": r}), job.config.seed) for r in rules]
    sigmas = [c.sigma for c in chosen]
    frame, step = Frame.over(train), settings.unit_candidates
    ranges = [(a, min(a + step, settings.n_candidates)) for a in range(0, settings.n_candidates, step)]
    units = {n: pa.table({"start": [a], "stop": [b]}) for n, (a, b) in enumerate(ranges)}
    pool = job.pool(settings.workers, "score", limit=len(units))
    shards = [job.engine.share(np.asarray(train[rows])) for rows in cut(len(train), settings.shard_latents)]
    worker: type[Scorer] = ScoreWorker
    source: tuple[Any, ...] = (shards, frame)
    kind = ""
    if settings.backend == "faiss":
        index, why = open_index(job, train, shards)
        kind = str(index.structure["kind"])
        job.console.print(f"score     {kind} index: {why}", highlight=False)
        worker = ApproximateScoreWorker
        source = (job.engine.share(train), job.engine.share(index.data()), index.structure)
    with ExitStack() as held:
        if placement == "sharded":
            pool = replace(pool, count=min(SENDERS, len(units)), cpus=0.0, gpus=0.0, memory=None)
            worker = ShardedScoreWorker
            source = (held.enter_context(held_shards(job, shards, frame)), train.shape[1])
        carrier = run_units(
            replace(job, run=runs[0]),
            "score",
            units,
            {n: b - a for n, (a, b) in enumerate(ranges)},
            done,
            pool,
            worker,
            (
                *source,
                job.engine.share(plan),
                job.engine.share(latents.keys),
                job.config,
                sigmas,
                [run.root for run in runs],
            ),
            unit_name="candidates",
        )
    real = score_held_out(job, train, sigmas, runs)
    outcomes = []
    for bandwidth, run, (held_out, digest_held_out) in zip(chosen, runs, real, strict=True):
        if run is not runs[0]:  # the same units, whose files the workers wrote there too
            until_listed("score", carrier, In(run.root))
        results = carrier if run is runs[0] else run.finished_units("score")
        found = Outcome.of(results.values())
        facts: dict[str, Any] = {
            "sigma": bandwidth.sigma,
            "sigma_rule": bandwidth.rule,
            "sigma_numbers": bandwidth.numbers,
            "sigma_sentence": bandwidth.sentence,
            "latents": len(latents),
            "held_out": None if held_out is None else asdict(held_out),
            "pairs": n_pairs_for(settings.n_candidates, len(settings.plan_alphas)),
            "backend": settings.backend,
            "placement": placement,
            "shards": len(shards),
        }
        if plan.noise is not None:
            facts["noise_radius"] = plan.noise.radius
        if plan.listed is not None:
            facts["listed"] = len(plan.listed)
        if kind:
            widths = [result.extra["interval"] for result in results.values()]
            facts |= {"index": kind, "interval_width": float(np.median(widths))}
        both = digest_text(add_digests([int(found.digest, 16), digest_held_out]))
        outcomes.append(replace(found, digest=both, facts={**found.facts, **facts}))
    return outcomes


def _placement(job: Job, size: int) -> str:
    """Where latents of `size` bytes are to live."""
    settings = job.config.score
    if settings.placement != "auto":
        return settings.placement
    if isinstance(settings.latents_gb, str):
        workers = [node for node in job.engine.nodes() if node.get("CPU")]
        budget = min((node.get("object_store_memory", 0.0) for node in workers), default=0.0) / 2
    else:
        budget = settings.latents_gb * 1e9
    return "replicated" if size <= budget else "sharded"
