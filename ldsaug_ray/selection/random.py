"""`random`: as many as the thresholds keep, drawn from all: unfiltered interpolants, the control for every filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.config import Config, Select
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.selection.best import Best, id_hash
from ldsaug_ray.selection.rule import RULES, HeldOut, Rule
from ldsaug_ray.selection.threshold import SLACK, Selection


class Random(Rule):
    """The thresholds say how many, and chance which."""

    words = "as many as they keep, drawn from all candidates (the control of unfiltered interpolants)"
    ranks = False

    def judged(self, settings: Select) -> bool:
        """Never: how many does not hang on the rank."""
        return False

    def counts(self, config: Config) -> dict[str, Any]:
        """The seed of the draw."""
        return {"seed": config.seed}

    def choose(self, tables: Iterable[pa.Table], n: int, config: Config, held_out: HeldOut) -> Selection:
        """As many as pass the thresholds; none of these was applied."""
        passed = super().choose(tables, n, config, held_out)
        return Selection(random_candidates(n, len(passed.ids), config.seed), None, n, passed.rules)

    def sentence(self, entry: Mapping[str, Any]) -> str:
        """How many, and why so many."""
        kept, rules = f"kept {entry['rows_out']:,} of {entry['rows_in']:,} candidates", " and ".join(entry["rules"])
        as_many = f"as many as {rules} keep{'' if len(entry['rules']) > 1 else 's'}"
        return f"{kept}, drawn at random: {as_many}, no threshold"


RULES.add("random", Random())


def random_candidates(n_total: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` different ids of 0..n_total-1, int64[count] ascending, each set equally likely over the seeds.

    Those whose seeded hash (splitmix64 of the id, shifted by the hash of the seed) comes first: the same however scores
    are cut or stored, and those of a smaller count are among those of a larger. In memory: the drawn, and a chunk.

    Raises ConfigError for more than there are, a negative count, or a seed outside 0..2**64-1.
    """
    if not 0 <= count <= n_total:
        raise ConfigError(f"between 0 and {n_total} of {n_total} candidates can be drawn; found {count}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be within 0..2**64-1; found {seed}")
    shift = id_hash(np.array([seed], np.uint64))
    first = Best(count, SLACK)
    for start in range(0, n_total, SLACK):
        ids = np.arange(start, min(start + SLACK, n_total), dtype=np.int64)
        hashed = id_hash(ids.astype(np.uint64) + shift)  # wraps around
        first.add(ids, -(hashed >> np.uint64(11)).astype(np.float64))  # 53 bits: exact; ties by lower id
    return first.cut()[0]
