"""Candidates with the group of their nearer parent, for `select.balance`: the driver reads them part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ldsaug_ray.config import Config
from ldsaug_ray.run.latents import Latents
from ldsaug_ray.selection.balance import LABEL, Grouped, Groups, check_cells, grouping, nearer

PARENTS = ("parent_i", "parent_j", "alpha")
ReadScores = Callable[[Sequence[str]], Iterable[pa.Table]]  # columns of `scores/` -> its tables


def grouped(config: Config, latents: Latents, columns: Sequence[str], read: ReadScores) -> Grouped:
    """Scores with a column `group`, by `select.balance`.

    Args:
        config: the settings.
        latents: of the train split.
        columns: what is looked at beside the parents.
        read: gives tables of `scores/`.

    Raises:
        InputError: a label that is not known, or not of every training image.
        ImpossibleError: fewer latents than clusters.
    """
    groups = _groups(config, latents)

    def tables() -> Iterator[pa.Table]:
        for table in read(list(dict.fromkeys([*columns, *PARENTS]))):
            second = nearer(table["candidate"].to_numpy(), table["alpha"].to_numpy(), config.seed)
            rows = latents.rows(pc.if_else(pa.array(second), table["parent_j"], table["parent_i"]))
            yield table.append_column("group", pa.array(groups.of[rows]))

    return Grouped(groups.names, tables)


def check_groups(config: Config, n: int, latents: Callable[[], Latents]) -> None:
    """Raises what `grouped` would, but of a balance of the user's own, without looking for cells of the n
    latents."""
    settings = config.select
    if not settings.rule.keeps:
        return
    if settings.balance == "cluster":
        check_cells(settings.clusters, n)
    elif settings.balance.startswith(LABEL):
        _groups(config, latents())


def _groups(config: Config, latents: Latents) -> Groups:
    settings = config.select
    of_many = settings.balance.removeprefix(LABEL) in latents.categorical
    labels = dict(zip(latents.attribute_names, latents.attributes.T - int(of_many), strict=True))
    return grouping(
        settings.balance,
        latents.z,
        latents.keys.to_pylist(),
        labels,
        clusters=settings.clusters,
        seed=config.seed,
        missing=-int(of_many),
    )
