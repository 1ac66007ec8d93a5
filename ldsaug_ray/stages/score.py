"""Stage `score`: latents to `scores/`, a row for every candidate, and `held_out/`, one for every test latent.

Candidates are cut into units by the settings, never by how many workers there are; training latents are shared
through the object store, read without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import Config
from ldsaug_ray.digest import add_digests, digest_text, table_digest
from ldsaug_ray.lds import candidates, n_pairs_for, resolve_sigma, score_pairs, validate_latents
from ldsaug_ray.rundir import Counts, UnitResult, total
from ldsaug_ray.stages._held_out import score_held_out
from ldsaug_ray.stages._job import Job, cluster_resources, pool_of
from ldsaug_ray.stages._outcome import Outcome
from ldsaug_ray.stages._units import run_units
from ldsaug_ray.stages.encode import read_latents
from ldsaug_ray.storage import Location


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Score every candidate of the plan.

    Raises:
        InputError: a latent is not finite (the message names its key), or there are fewer than two.
    """
    import ray

    settings = job.config.score
    keys, train = read_latents(job, "train")
    validate_latents(train, keys=keys)
    chosen = resolve_sigma(train, settings, job.config.seed)
    # whole pairs to a unit: the parents' distances serve all alphas
    step = max(1, settings.part_candidates // len(settings.alphas)) * len(settings.alphas)
    ranges = [(a, min(a + step, settings.n_candidates)) for a in range(0, settings.n_candidates, step)]
    units = {n: pa.table({"start": [a], "stop": [b]}) for n, (a, b) in enumerate(ranges)}
    pool = pool_of(settings.workers, "score", cluster_resources(), limit=len(units))
    results = run_units(
        job,
        "score",
        units,
        {n: b - a for n, (a, b) in enumerate(ranges)},
        done,
        pool,
        ScoreWorker,
        (ray.put(train), ray.put(pa.array(keys, pa.string())), job.config, chosen.sigma, job.run.root),
        unit_name="candidates",
    )
    counts, digest = total(results.values())
    held_out, digest_held_out = score_held_out(job, train, chosen.sigma)
    facts = {
        "sigma": chosen.sigma,
        "sigma_rule": chosen.rule,
        "sigma_numbers": chosen.numbers,
        "latents": len(keys),
        "held_out": None if held_out is None else asdict(held_out),
        "pairs": n_pairs_for(settings.n_candidates, len(settings.alphas)),
    }
    return Outcome(counts, digest_text(add_digests([int(digest, 16), digest_held_out])), facts)


class ScoreWorker:
    """Holds the training latents; one range of candidates a call."""

    def __init__(self, train: np.ndarray, keys: pa.StringArray, config: Config, sigma: float, run: Location):
        self.train, self.keys, self.sigma, self.run = train, keys, sigma, run
        self.settings, self.seed = config.score, config.seed

    def __call__(self, unit: int, bounds: pa.Table) -> UnitResult:
        settings = self.settings
        alphas = settings.alphas
        start, stop = bounds["start"][0].as_py(), bounds["stop"][0].as_py()
        plan = candidates(len(self.train), alphas, start, stop, self.seed)
        first = np.arange(0, len(plan), len(alphas))  # units start at a pair's first alpha
        pairs = np.stack([plan.i[first], plan.j[first]], axis=1)
        scores = score_pairs(
            self.train,
            pairs,
            alphas,
            [self.sigma],
            interpolation=settings.interpolation,
            tile_rows=settings.tile_rows,
            tile_latents=settings.tile_latents,
        )
        table = pa.table(
            {
                "candidate": plan.id,
                "parent_i": self.keys.take(pa.array(plan.i)),
                "parent_j": self.keys.take(pa.array(plan.j)),
                "alpha": plan.alpha,
                "log_lds": scores.log_lds.reshape(-1)[: len(plan)],
                "log_lds_excluding_parents": scores.log_lds_excluding_parents.reshape(-1)[: len(plan)],
                "parent_share": scores.parent_share.reshape(-1)[: len(plan)],
                "effective_neighbours": scores.effective_neighbours.reshape(-1)[: len(plan)],
            }
        )
        file = f"scores/part-{unit:06d}.parquet"
        (self.run / file).write_table(table)
        return UnitResult(unit, Counts(len(table), len(table)), table_digest(table), (file,), (len(table),))
