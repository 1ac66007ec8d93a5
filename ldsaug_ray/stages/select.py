"""Stage `select`: `scores/` to `selected/` and the threshold that was used.

Two passes over the scores, one file at a time, on the driver: the global threshold needs all of them in one place. With
`select.balance` one over the candidates' parents comes first, which counts groups.
What is kept is the rule's that `select.which` names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.digest import add_digests, digest_text, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.latents import Latents, latents_on_disk
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.run.progress import bar
from ldsaug_ray.selection import PAPER_TAU, Selection
from ldsaug_ray.selection.balance import LABEL
from ldsaug_ray.selection.rank import RANK
from ldsaug_ray.selection.rule import checked_sentence, chosen
from ldsaug_ray.stages.shared.groups import ReadScores, check_groups, grouped
from ldsaug_ray.stages.shared.held_out import held_out_scores
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.ranked import check_rank, ensure_ranked, with_rank


def _of_balance(config: Config) -> dict[str, Any]:
    return {} if config.select.balance == "none" else {"seed": config.seed}


def _reads(config: Config) -> tuple[str, ...]:
    labels, judged = config.select.balance.startswith(LABEL), config.select.rule.judged(config.select)
    return ("encode",) * labels + ("train",) * judged


def _code(config: Config) -> tuple[str, ...]:
    select = config.select
    return (select.which, select.rank, *([] if select.balance.startswith(LABEL) else [select.balance]))


STAGE = declare(
    Stage(
        name="select",
        does="keep the dense candidates",
        unit="candidates",
        needs=("score",),
        writes=("selected",),
        sections=("select",),
        also=lambda config: {**_of_balance(config), **config.select.rule.counts(config)},
        code=_code,
        reads=_reads,
        on_driver=lambda config: not config.select.rule.judged(config.select),
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Keep the candidates that `select.which` asks for.

    Raises:
        NothingSelectedError: none passes the rules; the message lists thresholds that would keep some.
        InputError: too few held-out latents for a rule that compares with them.
        ConfigError: a rule of the user's own gives no selection.
    """
    from ldsaug_ray.stages.shared.modes import Modes  # measures import torch

    n = job.run.require("score", "rows_out")
    rule = job.config.select.rule
    if not rule.keeps:
        return _outcome(job.config, choose(job.config, job.run, lambda columns: ()), [], {})
    ensure_ranked(job)
    files = job.run.folder("scores").files(".parquet")
    balanced = job.config.select.balance != "none"
    with bar(job.console, "select", (1 + balanced) * n, "candidates") as shown:

        def read(columns: Sequence[str]) -> Iterator[pa.Table]:
            for table in read_columns(files, columns):
                yield table
                shown.advance(len(table))

        latents = cache(partial(latents_on_disk, job.run, "train"))
        selection = choose(job.config, job.run, read, latents)
        digests = []
        judged = rule.judged(job.config.select)
        modes = Modes(job.config, latents(), n, RANK if judged else rule.columns(job.config.select)[0])
        for k, table in enumerate(with_rank(job.config, job.run, (file.read_table() for file in files))):
            keep = among(selection.ids, table["candidate"].to_numpy())
            modes.see(table, keep)
            if keep.any():
                kept = table.filter(pa.array(keep)).sort_by("candidate")
                (job.run.folder("selected") / f"part-{k:06d}.parquet").write_table(kept)
                digests.append(table_digest(kept))
    return _outcome(job.config, selection, digests, modes.facts(len(selection.ids), n))


def check(job: Job) -> None:
    """Raises what `run` would of groups and the rank, before an earlier selection is deleted."""
    check_rank(job.config)
    n = int(job.run.require("prepare", "train_images"))
    check_groups(job.config, n, partial(latents_on_disk, job.run, "train"))


def read_columns(files: Iterable[Location], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Files of `scores/`, one after the other."""
    for file in files:
        yield file.read_table([*columns])


def choose(config: Config, scored: RunDir, read: ReadScores, latents: Callable[[], Latents] | None = None) -> Selection:
    """The candidates that become A, and why.

    Args:
        config: the settings.
        scored: has `scores/` and `held_out/`.
        read: gives tables of all of `scores/` with the columns that are asked for.
        latents: reads those of the train split; none: `scored` has them.

    Raises:
        NothingSelectedError, InputError, ConfigError: as `run`.
    """
    rule = config.select.rule
    columns = ["candidate", *rule.columns(config.select)]

    def ranked(some: Sequence[str]) -> Iterable[pa.Table]:
        return with_rank(config, scored, read([name for name in some if name != RANK]))

    balanced = rule.keeps and config.select.balance != "none"
    latents = latents or partial(latents_on_disk, scored, "train")
    tables = grouped(config, latents(), columns, ranked) if balanced else ranked(columns)
    return chosen(tables, scored.require("score", "rows_out"), config, held_out_scores(scored))


def _outcome(config: Config, found: Selection, digests: list[int], modes: Mapping[str, Any]) -> Outcome:
    settings, n, kept = config.select, found.n_candidates, len(found.ids)
    log, band = found.threshold_log, found.typical_log
    facts: dict[str, Any] = {
        "which": settings.which,
        "ranked_by": settings.rule.columns(settings)[0],
        "paper_tau": PAPER_TAU,
        "rules": found.rules,
        "threshold_log_lds": log,
        "threshold_tau": None if log is None else math.exp(log),
        "binding_rule": found.binding,
        "auto_log_lds": found.auto_log,
        "typical_log_lds": None if band is None else {"least": band[0], "most": band[1]},
    }
    if settings.rule.judged(settings):
        facts |= {"threshold_log_lds": None, "threshold_tau": None}
        facts["rank"] = {"name": settings.rank, "words": settings.ranking.words, "least": log}
    if found.groups is not None:
        facts |= {"balance": settings.balance, "groups": found.groups, "note": found.note}
    facts |= modes
    facts["sentence"] = checked_sentence(settings.which, {**facts, "rows_in": n, "rows_out": kept})
    return Outcome(Counts(n, kept, n - kept), digest_text(add_digests(digests)), facts)


def among(ids: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some candidates are among `ids`, ascending. (`numpy.isin` would sort all ids for every file.)"""
    return np.searchsorted(ids, candidates, "right") > np.searchsorted(ids, candidates)
