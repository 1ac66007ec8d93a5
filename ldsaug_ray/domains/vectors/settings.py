"""Section `data` of the domain `vectors`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ldsaug_ray.config import CommonData
from ldsaug_ray.config.base import Name, added


class VectorsData(CommonData):
    """Where the rows come from, and which of their columns are values."""

    source: str = Field(
        min_length=1,
        description="Parquet, CSV or .npy file, or a folder of one kind, local or any URI; or sklearn:wine, "
        "sklearn:breast_cancer, sklearn:iris",
    )
    format: Literal["auto", "parquet", "csv", "npy"] = Field(
        "auto", description="layout of the source; auto: by the files' endings"
    )
    columns: tuple[Name, ...] | None = Field(
        None,
        description="columns with the values: numeric ones, or one with lists of one length; none: the one column of "
        "lists, else all numeric ones but key and labels",
    )
    categories: tuple[Name, ...] | dict[Name, tuple[str, ...]] = added(
        (),
        description="columns whose cells are one of a few words or numbers, such as [colour], for vae.kind: mlp; or "
        "with their values, {colour: [red, white]}. Without these, the values of the training rows: a row with another "
        "is quarantined",
    )
    attributes: Literal["columns"] | None = Field(
        None, description="columns: take the labels that attribute_names names; none: no labels"
    )
    attribute_names: tuple[Name, ...] | None = Field(
        None, description="columns with labels: text or whole numbers, coded 0, 1, … in their order"
    )
    part_rows: int = Field(4096, ge=16, le=65_536, description="rows per stored part (and unit of resumable work)")
