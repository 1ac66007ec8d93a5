"""Section `select`: which candidates are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ldsaug_ray.config.base import Auto, Positive, Section


class Select(Section):
    """Which candidates are kept. Rules given together must all hold."""

    which: Literal["lds", "random", "lds+sharpness", "typical", "none"] = Field(
        "lds",
        description="lds: what the rules keep; random: as many as they keep, drawn from all candidates (the control of "
        "unfiltered interpolants); lds+sharpness: of what the rules keep, the sharpest once decoded (decode.sharpest); "
        "typical: the rules, with select.typical; none: nothing, whatever the rules (the compute-matched control: "
        "finetune sees training images alone)",
    )
    tau: Annotated[float, Field(gt=0, lt=1)] | Auto | None = Field(
        None,
        description="keep LDS > tau; the paper names 0.28; auto: LDS at or above that which all but tau_level of real "
        "images have (conformal, from the test split; it holds for real images' latents, not for interpolants)",
    )
    tau_level: float = Field(
        0.05, ge=0.001, lt=1, description="with tau: auto: the share of real images' latents that may fall below it"
    )
    typical: float | None = Field(
        None,
        gt=0,
        le=0.999,
        description="keep candidates in the central band of log LDS that holds this share of real images' latents, "
        "such as 0.9 (conformal, as tau: auto); interpolants are usually denser than real ones. With which: typical "
        "0.9 where not given",
    )
    top_fraction: float | None = Field(
        0.2,
        gt=0,
        le=1,
        description="keep this share of the densest; null by default where tau, typical or top_count is given",
    )
    top_count: Positive | None = Field(None, description="keep this many of the densest candidates")
    stratify: bool = Field(
        False, description="apply top_fraction and top_count within each alpha, so that each is kept equally often"
    )
    exclude_parents: bool = Field(False, description="rank by the density without the candidate's own two parents")

    @property
    def needs_held_out(self) -> bool:
        """Whether a rule compares with held-out real latents."""
        return self.which != "none" and (self.tau == "auto" or self.typical is not None)

    @model_validator(mode="before")
    @classmethod
    def _one_rule_by_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("which") == "typical" and given.get("typical") is None:
            given = {**given, "typical": 0.9}
        others = ("tau", "typical", "top_count")
        other = isinstance(given, dict) and any(given.get(name) is not None for name in others)
        return {"top_fraction": None, **given} if other else given

    @model_validator(mode="after")
    def _some_rule(self) -> Select:
        if self.top_fraction is None and self.top_count is None:
            if self.tau is None and self.typical is None:
                raise ValueError("give at least one of tau, typical, top_fraction, top_count")
            if self.stratify:
                raise ValueError("stratify goes with top_fraction or top_count; give one of them")
        return self
