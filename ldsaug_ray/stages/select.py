"""Stage `select`: `scores/` to `selected/` and the threshold that was used.

Two passes over the scores, one file at a time, on the driver: the global threshold needs all of them in one place.
With `select.which: random` the rules say how many, and chance which; with `none` nothing is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.digest import add_digests, digest_text, table_digest
from ldsaug_ray.config import Config, Select
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.progress import bar
from ldsaug_ray.selection import Selection, random_candidates, select
from ldsaug_ray.stages.held_out import held_out_scores
from ldsaug_ray.stages.job import Job
from ldsaug_ray.stages.outcome import Outcome

PAPER_TAU = 0.28
_OF_THE_RULES = ("threshold_log_lds", "threshold_tau", "binding_rule", "auto_log_lds", "typical_log_lds")


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Keep the candidates that `select.which` asks for.

    Raises:
        NothingSelectedError: none passes the rules; the message lists thresholds that would keep some.
        InputError: too few held-out latents for a rule that compares with them.
    """
    n = job.run.require("score", "rows_out")
    settings = job.config.select
    facts: dict[str, Any] = {"which": settings.which, "ranked_by": _score(settings), "paper_tau": PAPER_TAU}
    if settings.which == "none":
        return Outcome(Counts(n, 0, n), digest_text(0), {**facts, **dict.fromkeys(_OF_THE_RULES), "rules": {}})
    files = job.run.folder("scores").files(".parquet")
    with bar(job.console, "select", n, "candidates") as shown:

        def tables() -> Iterator[pa.Table]:
            for file in files:
                table = file.read_table(["candidate", _score(settings)])
                yield table
                shown.advance(len(table))

        selection, ids = choose(job.config, job.run, tables())
        digests = []
        for k, file in enumerate(files):
            table = file.read_table()
            keep = among(ids, table["candidate"].to_numpy())
            if keep.any():
                kept = table.filter(pa.array(keep)).sort_by("candidate")
                (job.run.folder("selected") / f"part-{k:06d}.parquet").write_table(kept)
                digests.append(table_digest(kept))
    facts |= dict.fromkeys(_OF_THE_RULES)
    facts["rules"] = selection.rules
    if settings.which != "random":  # no threshold was applied there
        band = selection.typical_log
        facts |= {
            "threshold_log_lds": selection.threshold_log,
            "threshold_tau": math.exp(selection.threshold_log),
            "binding_rule": selection.binding,
            "auto_log_lds": selection.auto_log,
            "typical_log_lds": None if band is None else {"least": band[0], "most": band[1]},
        }
    return Outcome(Counts(n, len(ids), n - len(ids)), digest_text(add_digests(digests)), facts)


def choose(config: Config, scored: RunDir, tables: Iterable[pa.Table]) -> tuple[Selection, NDArray[np.int64]]:
    """What the rules keep, and the candidates, ascending, that become A: the same, or as many drawn at random.

    Args:
        config: the settings.
        scored: has `scores/` and `held_out/`.
        tables: all of `scores/`, with the candidate and the score that they are ranked by.

    Raises:
        NothingSelectedError, InputError: as `run`.
    """
    settings, n = config.select, scored.require("score", "rows_out")
    score, alphas = _score(settings), len(config.score.alphas)
    chunks = ((table["candidate"].to_numpy(), table[score].to_numpy()) for table in tables)
    selection = select(chunks, n, settings, n_alphas=alphas, held_out=held_out_scores(scored))
    if settings.which == "random":
        return selection, random_candidates(n, len(selection.ids), config.seed)
    return selection, selection.ids


def among(ids: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some candidates are among `ids`, ascending. (`numpy.isin` would sort all ids for every file.)"""
    return np.searchsorted(ids, candidates, "right") > np.searchsorted(ids, candidates)


def _score(settings: Select) -> str:
    """The column that candidates are ranked by."""
    return "log_lds_excluding_parents" if settings.exclude_parents else "log_lds"
