"""Section `data` of molecules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ldsaug_ray.config import CommonData


class MoleculeData(CommonData):
    """Where the molecules come from, and which are taken."""

    source: str = Field(
        min_length=1,
        description="SMILES: file or folder of .smi (one a line, a name may follow), CSV, TSV or Parquet, local or any "
        "URI; or moses:demo",
    )
    format: Literal["auto", "text", "parquet"] = Field(
        "auto", description="text: .smi, CSV and TSV; auto: judged from what is there"
    )
    smiles_column: str = Field("smiles", min_length=1, description="CSV and Parquet: column with the SMILES")
    notation: Literal["smiles", "selfies"] = Field(
        "smiles",
        description="what a model reads and writes; selfies: every string is a molecule; the few that have none are "
        "quarantined",
    )
    max_length: Annotated[int, Field(ge=4, le=1000)] = Field(
        100, description="characters of a canonical SMILES; longer ones are quarantined, and decoding stops there"
    )
