"""What later stages ask of the data, as soon as these are listed or stored: else it would be told after hours."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import pyarrow.compute as pc

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains.sources.attributes import require_attribute
from ldsaug_ray.run.latents import label_codes
from ldsaug_ray.selection.balance import LABEL, check_cells, grouping
from ldsaug_ray.stages.shared.ranked import check_rank


def check_ahead(config: Config, n: int, labels: Collection[str] | None, unit: str) -> None:
    """Raise what scoring, selecting and evaluating would, over `n` training items with these labels; none: not known.

    Raises:
        InputError: a label that is asked for is none of these.
        ImpossibleError: too few items for the plan of candidates, or for cells.
        ConfigError: a rank that says nothing of this codec.
    """
    from ldsaug_ray.lds import check_plan

    for setting, name in _labels_asked(config) if labels is not None else ():
        require_attribute(name, labels or (), unit, setting)
    check_plan(n, config.score, config.seed)
    if config.select.rule.keeps and config.select.balance == "cluster":
        check_cells(config.select.clusters, n)
    check_rank(config)


def check_labelled(config: Config, files: Iterable[Location]) -> None:
    """Raises InputError where a stored training item lacks the label that `select.balance` goes by."""
    balance = config.select.balance
    if not (config.select.rule.keeps and balance.startswith(LABEL)):
        return
    name, keys, codes = balance.removeprefix(LABEL), [], []
    for file in files:
        table = file.read_table(["key", "attributes"])
        keys += table["key"].to_pylist()
        codes.append(label_codes(pc.struct_field(table["attributes"], name)))
    grouping(balance, np.empty((len(keys), 0)), keys, {name: np.concatenate(codes)})


def _labels_asked(config: Config) -> Iterator[tuple[str, str]]:
    """Labels that settings name, each with the setting."""
    if config.data.attributes is None:
        return
    evaluate, balance = config.evaluate, config.select.balance
    yield from (("evaluate.attributes", name) for name in evaluate.attributes)
    if evaluate.downstream.label:
        yield "evaluate.downstream.label", evaluate.downstream.label
    if config.select.rule.keeps and balance.startswith(LABEL):
        yield f"select.balance: {balance}", balance.removeprefix(LABEL)
