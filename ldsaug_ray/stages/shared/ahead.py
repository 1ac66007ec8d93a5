"""What later stages ask of the data, as soon as these are listed or stored: else it would be told after hours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains.sources.attributes import require_attribute
from ldsaug_ray.run.latents import is_categorical, label_codes
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


def check_labelled(config: Config, train: Sequence[Location], test: Sequence[Location]) -> None:
    """Raise InputError where labels of the stored items do not do for what later stages are asked for: one that
    `select.balance` goes by is missing, or a probe cannot tell those of `evaluate.attributes`."""
    from ldsaug_ray.metrics.classes import check_classes

    balance, evaluate = config.select.balance, config.evaluate
    grouped = [balance.removeprefix(LABEL)] if config.select.rule.keeps and balance.startswith(LABEL) else []
    probed = evaluate.attributes if evaluate.extractor is not None else ()
    if not grouped and not probed:
        return
    stored = [file.read_table(["key", "attributes"]) for file in train]
    for name in grouped:
        keys = [key for table in stored for key in table["key"].to_pylist()]
        grouping(balance, np.empty((len(keys), 0)), keys, {name: _labels(stored, name)})
    many = [n for n in probed if any(is_categorical(pc.struct_field(table["attributes"], n)) for table in stored)]
    held_out = [file.read_table(["attributes"]) for file in test] if many else []
    for name in many:
        check_classes(name, _labels(stored, name), _labels(held_out, name))


def _labels(tables: Sequence[pa.Table], name: str) -> NDArray[np.int32]:
    """Of stored items, as in `Latents.attributes`."""
    columns = [pc.struct_field(table["attributes"], name) for table in tables]
    return np.concatenate([np.empty(0, np.int32), *map(label_codes, columns)])


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
