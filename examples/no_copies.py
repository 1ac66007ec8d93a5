"""A selection rule of one's own: the paper's, without candidates that are almost copies of a parent.

At small σ a candidate is dense because its own two parents are near. This rule leaves out what the thresholds keep
where those two hold more than half of the density. With this folder on PYTHONPATH:

    PYTHONPATH=examples ldsaug run configs/demo.yaml select.which=no_copies:NoCopies
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import Config, Select
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.selection import Rule, Selection

MOST = 0.5  # of a candidate's density, by its own two parents


class NoCopies(Rule):
    """What is different from `Rule`, the paper's: columns, choice, sentence."""

    def columns(self, settings: Select) -> tuple[str, ...]:
        return (*super().columns(settings), "parent_share")

    def counts(self, config: Config) -> dict[str, Any]:
        return {"most": MOST}  # with another limit, stage `select` is done again

    def choose(self, tables: Iterable[pa.Table], n: int, config: Config, held_out: Any) -> Selection:
        if config.select.balance != "none":
            raise ConfigError("select.which: no_copies:NoCopies does not go with select.balance; leave it out")
        copies = np.zeros(n, bool)

        def looked_at() -> Iterator[pa.Table]:
            for table in tables:
                copies[table["candidate"].to_numpy()] = table["parent_share"].to_numpy() > MOST
                yield table

        kept = super().choose(looked_at(), n, config, held_out)
        copy = copies[kept.ids]
        return replace(kept, ids=kept.ids[~copy], note=f"{copy.sum():,} more were dense by their own parents.")

    def sentence(self, entry: Mapping[str, Any]) -> str:
        return f"{super().sentence(entry)}; at most {MOST:.0%} of it from the own parents"
