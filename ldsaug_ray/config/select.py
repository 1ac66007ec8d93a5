"""Section `select`: which candidates are kept."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.common.registry import room_of
from ldsaug_ray.config.base import Auto, Positive, Section, added
from ldsaug_ray.errors import ConfigError

if TYPE_CHECKING:
    from ldsaug_ray.selection import Rank, Rule


class Select(Section):
    """Which candidates are kept. Rules given together must all hold."""

    which: str = Field(
        "lds",
        description="what is kept. {RULES}",
    )
    rank: str = added(
        "lds",
        description="what top_fraction and top_count rank by; with others than lds every candidate is decoded, once. "
        "{RANKS}",
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
    balance: str = added(
        "none",
        description="apply top_fraction and top_count within groups, since the densest candidates are those of the "
        "densest mode; a share by largest remainders, a count split evenly. none: no groups; label:NAME: of its label; "
        "{BALANCES}",
    )
    clusters: Positive = added(50, description="with balance cluster: k-means cells of the training latents")
    exclude_parents: bool = Field(False, description="rank by the density without the candidate's own two parents")

    @property
    def rule(self) -> Rule:
        """What `which` names."""
        rule: Rule = room_of("selection").RULES.get(self.which)
        return rule

    @property
    def ranking(self) -> Rank:
        """What `rank` names."""
        rank: Rank = room_of("selection").RANKS.get(self.rank)
        return rank

    @property
    def needs_held_out(self) -> bool:
        """Whether the rule compares with held-out real latents."""
        return self.rule.needs_held_out(self)

    @field_validator("which")
    @classmethod
    def _known(cls, which: str) -> str:
        return str(room_of("selection").RULES.check(which))

    @field_validator("rank")
    @classmethod
    def _known_rank(cls, rank: str) -> str:
        return str(room_of("selection").RANKS.check(rank))

    @field_validator("balance")
    @classmethod
    def _groups(cls, balance: str) -> str:
        return str(room_of("selection").check_balance(balance))

    @model_validator(mode="before")
    @classmethod
    def _one_rule_by_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("which"), str):
            with suppress(ConfigError):  # an unknown rule is told of as the field is checked
                given = room_of("selection").RULES.get(given["which"]).fill(given)
        others = ("tau", "typical", "top_count")
        other = isinstance(given, dict) and any(given.get(name) is not None for name in others)
        return {"top_fraction": None, **given} if other else given

    @model_validator(mode="after")
    def _some_rule(self) -> Select:
        for name in ("tau", "typical") if self.rank != "lds" else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is a value of LDS, and rank is {self.rank}; give top_fraction or top_count")
        if self.top_fraction is None and self.top_count is None:
            if self.tau is None and self.typical is None:
                raise ValueError("give at least one of tau, typical, top_fraction, top_count")
            for name in ("stratify", "balance"):
                if getattr(self, name) not in (False, "none"):
                    raise ValueError(f"{name} goes with top_fraction or top_count; give one of them")
        return self
