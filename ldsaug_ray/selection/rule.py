"""What a selection rule is: it owns its settings, what it keeps, and the sentence that tells it; nobody asks its name.

`select.which` names one of `RULES`, or a subclass or instance of `Rule` of the user's own as `package.module:Name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import Config, Select
from ldsaug_ray.errors import ConfigError, InputError, NothingSelectedError, failing
from ldsaug_ray.selection.balance import Grouped, counted, short_groups
from ldsaug_ray.selection.rank import RANK
from ldsaug_ray.selection.threshold import Selection, select

PAPER_TAU = 0.28

HeldOut = NDArray[np.float64] | None  # log LDS of real latents that the density was not made of, [h]


class Rule:
    """The paper's: what the thresholds of `select` keep. Others are subclasses that change what is different."""

    words = "what the rules keep"  # of it, in the help of select.which
    keeps = True  # whether there is an A at all
    ranks = True  # whether those are kept that rank first, so that select.balance says which
    sharpest = False  # whether decode keeps the share decode.sharpest alone, the sharpest

    def fill(self, given: dict[str, Any]) -> dict[str, Any]:
        """The section `select` as the user gave it, with this rule's own defaults."""
        return given

    def needs_held_out(self, settings: Select) -> bool:
        """Whether candidates are compared with held-out real latents."""
        return settings.tau == "auto" or settings.typical is not None

    def counts(self, config: Config) -> dict[str, Any]:
        """What the result depends on beside the section `select` and the scores: JSON values, for the fingerprint."""
        return {}

    def judged(self, settings: Select) -> bool:
        """Whether it ranks by what must be decoded, which tables then have as column `rank_score`."""
        return settings.ranking.judge is not None

    def columns(self, settings: Select) -> tuple[str, ...]:
        """The columns of `scores/` that `choose` looks at beside `candidate`. First the log LDS that the report shows,
        with the own parents or without."""
        return ("log_lds_excluding_parents" if settings.exclude_parents else "log_lds",)

    def choose(self, tables: Iterable[pa.Table], n: int, config: Config, held_out: HeldOut) -> Selection:
        """Choose among candidates 0..n-1.

        Args:
            tables: all candidates, in parts and any order: `candidate` int64, and `columns`. To be gone through once;
                with select.balance a `Grouped`, of a column `group` too, which can be gone through again.
            n: how many there are.
            config: all settings.
            held_out: empty, or none, where the run has no test images.

        Raises:
            NothingSelectedError, InputError: as `select`.
        """
        settings, alphas = config.select, len(config.score.plan_alphas)
        columns = ["candidate", RANK if self.judged(settings) else self.columns(settings)[0]]
        if not isinstance(tables, Grouped):
            chunks = (tuple(table[c].to_numpy() for c in columns) for table in tables)
            return select(chunks, n, settings, n_alphas=alphas, held_out=held_out)
        columns.append("group")
        strata = alphas if settings.stratify else 1
        groups = counted(
            ((t["candidate"].to_numpy(), t["group"].to_numpy()) for t in tables), len(tables.names), strata
        )
        chunks = (tuple(table[c].to_numpy() for c in columns) for table in tables)
        found = select(chunks, n, settings, n_alphas=alphas, held_out=held_out, groups=groups, seed=config.seed)
        sizes = groups.reshape(-1, strata).sum(axis=1)
        note = "" if settings.top_count is None else short_groups(sizes, settings.top_count, tables.names)
        return replace(found, note=note)

    def sentence(self, entry: Mapping[str, Any]) -> str:
        """What was kept, and why, without a full stop; `entry` is the stage's in the manifest."""
        kept = f"kept {entry['rows_out']:,} of {entry['rows_in']:,} candidates"
        if rank := entry.get("rank"):
            within = f" in each of {entry['groups']:,} groups ({entry['balance']})" if entry.get("groups") else ""
            most = f"those with the most{within} by {rank['words']}"
            return f"{kept}, {most} (select.rank: {rank['name']}, ≥ {rank['least']:.4g})"
        if entry["threshold_tau"] is None:
            return f"{kept}, by {entry['which']}, no threshold"
        if groups := entry.get("groups"):
            kept += f", the densest of each of {groups:,} groups (select.balance: {entry['balance']})"
        return (
            f"{kept}: LDS ≥ {entry['threshold_tau']:.4g} (log {entry['threshold_log_lds']:.3f}, by "
            f"{entry['binding_rule']}); the paper's tau is {entry['paper_tau']}"
        )


RULES = Registry("selection rule", Rule)


def chosen(tables: Iterable[pa.Table], n: int, config: Config, held_out: HeldOut) -> Selection:
    """What the rule of the settings chooses, checked: it may be the user's own. Arguments as of `Rule.choose`.

    Raises:
        ConfigError: what it gives is no selection of these candidates.
        NothingSelectedError, InputError: as its `choose`; InputError also where a user's raises anything else.
    """
    which, rule = config.select.which, RULES.get(config.select.which)
    score = rule.columns(config.select)[0]
    if score not in ("log_lds", "log_lds_excluding_parents"):
        raise ConfigError(f"select.which: {which} ranks by {score}; first must be log_lds or log_lds_excluding_parents")
    with failing(f"select.which {which}", own=":" in which):
        found = rule.choose(tables, n, config, held_out)
    if not isinstance(found, Selection):
        raise ConfigError(f"select.which: {which} gave {type(found).__name__}; a Selection is needed")
    ids = np.asarray(found.ids)
    ordered = ids.ndim == 1 and ids.dtype == np.int64 and bool((np.diff(ids) > 0).all())
    if not ordered or (len(ids) and not 0 <= ids[0] <= ids[-1] < n):
        raise ConfigError(f"select.which: {which} must give different ids of 0..{n - 1}, int64[K] ascending, as `ids`")
    if rule.keeps and not len(ids):
        raise NothingSelectedError(f"select.which: {which} keeps none of {n} candidates")
    return found


def checked_sentence(which: str, entry: Mapping[str, Any]) -> str:
    """The sentence of the rule of that name: it may be the user's own. Raises InputError where there is none."""
    with failing(f"select.which {which}", own=":" in which):
        sentence = RULES.get(which).sentence(entry)
    if not isinstance(sentence, str):
        raise InputError(f"select.which: {which} gave {type(sentence).__name__} as its sentence; text is needed")
    return sentence


def sentences_of(entry: Mapping[str, Any]) -> list[str]:
    """What to tell of a selection: its sentence, what was short, and which modes A has."""
    return [sentence_of(entry), *filter(None, [entry.get("note", "")]), *entry.get("modes_sentences", ())]


def sentence_of(entry: Mapping[str, Any]) -> str:
    """The sentence that the manifest's entry of `select` holds; entries of before it was kept have rules of ours."""
    return entry.get("sentence") or RULES.get(entry["which"]).sentence(entry)
