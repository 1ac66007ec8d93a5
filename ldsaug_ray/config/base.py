"""What every section of the settings is made of."""

from __future__ import annotations

import os
import unicodedata
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, AfterValidator(lambda text: unicodedata.normalize("NFC", text))]  # accents as one character
Interpolation = Literal["linear", "slerp"]


def how(default: Any = ..., **of_field: Any) -> Any:
    """A field that says how or where work is done, and changes no result: fingerprints leave it out."""
    return Field(default, json_schema_extra={"counts": "never"}, **of_field)


def since(default: Any, **of_field: Any) -> Any:
    """A field that counts since a later version: fingerprints leave its default out, which keeps those of before."""
    return Field(default, json_schema_extra={"counts": "changed"}, **of_field)


def added(default: Any, **of_field: Any) -> Any:
    """A field that earlier versions lacked, whose default is what they did: fingerprints leave the default out."""
    return Field(default, json_schema_extra={"counts": "unless default"}, **of_field)


def counted(section: Section, *, later: bool = True) -> dict[str, Any]:
    """What of a section changes a result, as plain JSON values; sections with nothing of the kind are left out.

    later: with the fields of `since`; else as the versions before counted.
    """
    found: dict[str, Any] = {}
    for name, value in section.model_dump(mode="json").items():
        field, own = type(section).model_fields[name], getattr(section, name)
        extra = field.json_schema_extra
        counts = extra.get("counts") if isinstance(extra, dict) else "always"
        if counts == "never" or (counts == "changed" and not later):
            continue
        if counts != "always" and own == field.default:
            continue
        inner = counted(own, later=later) if isinstance(own, Section) else value
        if inner != {} or not isinstance(own, Section):
            found[name] = inner
    return found


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name
        annotation = cls.model_fields[name].annotation if name is not None else bool
        if isinstance(value, bool) and annotation is not bool and bool not in get_args(annotation):
            raise ValueError("true and false are not possible here")  # Python would take them for 1 and 0
        return os.fspath(value) if isinstance(value, os.PathLike) else value
