"""`none`: nothing is kept: the compute-matched control, which is trained further on training images alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.config import Config, Select
from ldsaug_ray.selection.rule import RULES, HeldOut, Rule
from ldsaug_ray.selection.threshold import Selection


class Nothing(Rule):
    """No A, whatever the thresholds; the scores are not looked at."""

    words = "nothing, whatever the rules (the compute-matched control: finetune sees training images alone)"
    keeps = False

    def judged(self, settings: Select) -> bool:
        """Never."""
        return False

    def needs_held_out(self, settings: Select) -> bool:
        """Never."""
        return False

    def choose(self, tables: Iterable[pa.Table], n: int, config: Config, held_out: HeldOut) -> Selection:
        """None of them."""
        return Selection(np.empty(0, np.int64), None, n)

    def sentence(self, entry: Mapping[str, Any]) -> str:
        """Why there is no A."""
        return f"kept 0 of {entry['rows_in']:,} candidates: select.which is none, so that there is no A"


RULES.add("none", Nothing())
