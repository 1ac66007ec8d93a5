"""Section `score`: candidates and their Latent Density Score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.common.registry import room_of
from ldsaug_ray.config.base import Auto, Interpolation, Positive, Section, added, how
from ldsaug_ray.config.workers import ScoreWorkers

LARGEST_PART = 4_194_304  # candidates of one stored part: about 1 GB while it is written


class Sigma(Section):
    """Bandwidth of the kernel density."""

    rule: str = Field(
        "norm_fraction",
        description="how it is found. {SIGMA_RULES}",
    )
    scale: float | None = Field(
        None, gt=0, description="with norm_fraction (none: the paper's 0.2) or nearest_neighbour (none: 1)"
    )
    value: float | None = Field(None, ge=1e-100, le=1e100, description="with fixed: sigma itself")
    share: float | None = Field(None, gt=0, lt=1, description="with parent_share: the parents' median share; none: 0.1")

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        return str(room_of("lds").SIGMA_RULES.check(rule))

    @model_validator(mode="after")
    def _of_its_rule(self) -> Sigma:
        if not self.model_fields_set:  # the defaults go together
            return self
        rules = room_of("lds").SIGMA_RULES
        fields = rules.get(self.rule).fields
        for name in ("scale", "value", "share"):
            if getattr(self, name) is not None and name not in fields:
                having = " or ".join(rule for rule in rules.names() if name in rules.get(rule).fields)
                raise ValueError(f"{name} belongs to rule: {having}; leave it out (or null) with rule: {self.rule}")
        for name, default in fields.items():
            if getattr(self, name, default) is None and default is None:
                raise ValueError(f"{name} is needed with rule: {self.rule}")
        return self

    @property
    def numbers(self) -> dict[str, float]:
        """The fields that the rule goes by, as given or by default."""
        fields = room_of("lds").SIGMA_RULES.get(self.rule).fields
        given = {name: getattr(self, name, None) for name in fields}
        return {name: fields[name] if value is None else value for name, value in given.items()}


class Approximate(Section):
    """The approximate backend: near latents exactly, the rest from a sample."""

    neighbours: Positive = Field(64, description="of each parent, found by FAISS and summed exactly")
    sample: Positive = Field(8192, description="training latents drawn for all the rest")
    index: Literal["auto", "flat", "ivf", "ivfpq"] = Field(
        "auto",
        description="flat: searches all, so that intervals are certain; ivf: inverted lists; ivfpq: compressed",
    )
    lists: Positive | None = Field(None, description="with ivf and ivfpq; none: about 4 sqrt(N)")
    probes: Positive | None = Field(None, description="lists searched; none: a sixteenth of them")
    rerank: Positive = Field(4, description="with ivfpq: findings per neighbour ranked again on the original vectors")
    delta: float = Field(1e-3, gt=0, lt=1, description="what the interval of a candidate's log LDS may fail with")


class Score(Section):
    """Candidates and their Latent Density Score."""

    n_candidates: Positive = Field(50_000, description="interpolants to score, exactly")
    alphas: tuple[float, ...] = Field(
        tuple(m / 10 for m in range(1, 10)),
        min_length=1,
        description="interpolation weights; z = (1-a) z_i + a z_j; outside 0..1: extrapolation",
    )
    interpolation: Interpolation = Field(
        "linear", description="linear: the paper's straight line; slerp: the arc about the origin, which keeps the norm"
    )
    sigma: Sigma = Sigma()
    plan: Literal["random", "blocks", "neighbours", "single"] = Field(
        "random",
        description="random: the paper's independent pairs; blocks: every latent of a random set with every one of "
        "another, for millions of candidates at the price of matrix products; neighbours: each latent with its nearest "
        "(neighbours), in random order, none twice before all have come; single: noise about single latents, each as "
        "often, without alphas",
    )
    neighbours: Positive = added(10, description="with plan neighbours: nearest others of a latent")
    noise: float = added(
        0.0,
        ge=0,
        le=100,
        description="isotropic noise on every candidate: its norm, as a share of the median distance of a latent to "
        "the nearest other. Every candidate then takes a row of its own of the matrix product, with nine alphas about "
        "five times the products",
    )
    block: tuple[Positive, Positive] = Field(
        (128, 128), description="with plan blocks: latents of the two sets; a block is a stored part"
    )
    part_candidates: Positive | Auto = Field(
        "auto",
        description="candidates per stored part (and unit of resumable work), but with plan blocks; auto: a sixteenth "
        "of n_candidates, within 4,096..1,048,576; large ones multiply fewer parents again",
    )
    backend: Literal["exact", "faiss"] = Field(
        "exact", description="faiss: estimates with intervals, for very many latents"
    )
    approximate: Approximate = Approximate()
    shard_latents: Positive = Field(
        262_144, description="training latents summed over at a time; sums of shards are merged in order"
    )
    placement: Literal["auto", "replicated", "sharded"] = how(
        "auto",
        description="replicated: each node has all latents, in its object store; sharded: each shard lives in one "
        "worker; auto: sharded where the latents exceed latents_gb. The scores are the same",
    )
    latents_gb: float | Auto = how(
        "auto", description="latents a node may hold, GB; auto: half of the smallest node's object store"
    )
    tile_rows: Positive = how(32_768, description="parents held at once: bounds the memory of a worker")
    tile_latents: Positive = how(1024, description="training latents held at once: bounds the memory of a worker")
    workers: ScoreWorkers = ScoreWorkers()

    @field_validator("alphas")
    @classmethod
    def _alphas(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("an alpha is listed twice")
        if not all(abs(a) <= 100 and a not in (0, 1) for a in value):
            raise ValueError("every alpha must lie in -100..100 and be neither 0 nor 1: that would copy a parent")
        return value

    @field_validator("latents_gb")
    @classmethod
    def _budget(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value <= 0:
            raise ValueError("must be more than 0")
        return value

    @model_validator(mode="after")
    def _exact_only(self) -> Score:
        if self.backend == "faiss":
            for name, value in (("plan", "blocks"), ("placement", "sharded")):
                if getattr(self, name) == value:
                    raise ValueError(f"backend: faiss does not go with {name}: {value}; use backend: exact")
            if self.workers.gpus:
                raise ValueError("backend: faiss computes on CPUs (faiss-gpu apart); set workers.gpus: 0")
        return self

    @model_validator(mode="after")
    def _noisy(self) -> Score:
        if self.plan == "single" and not self.noise:
            raise ValueError("plan: single is noise about single latents; set noise above 0")
        rule, other = self.sigma.rule, self.plan in ("single", "neighbours")
        pairs = (other or self.noise) and room_of("lds").SIGMA_RULES.get(rule).pairs
        if other and pairs:
            raise ValueError(f"sigma.rule: {rule} looks at random pairs; with plan: {self.plan} set another rule")
        others = {"interpolation": "slerp", "plan": "blocks", "backend": "faiss"} if self.noise else {}
        found = [(name, value) for name, value in others.items() if getattr(self, name) == value]
        for name, value in [*found, *([("sigma.rule", rule)] if self.noise and pairs else [])]:
            raise ValueError(f"noise does not go with {name}: {value}; set noise to 0, or another {name}")
        return self

    @model_validator(mode="after")
    def _block_size(self) -> Score:
        size = self.block[0] * self.block[1] * len(self.alphas)
        if self.plan == "blocks" and size > LARGEST_PART:
            raise ValueError(
                f"block: {self.block[0]} x {self.block[1]} x {len(self.alphas)} alphas are {size:,} candidates in a "
                f"stored part; at most {LARGEST_PART:,} are possible"
            )
        return self

    @property
    def block_shape(self) -> tuple[int, int] | None:
        """Shape of the plan's blocks; none for independent pairs."""
        return self.block if self.plan == "blocks" else None

    @property
    def plan_alphas(self) -> tuple[float, ...]:
        """Weights of the second parent: `alphas`, or 0 alone where candidates have one parent."""
        return (0.0,) if self.plan == "single" else self.alphas

    @property
    def unit_candidates(self) -> int:
        """Candidates of one unit of work: a block, or whole pairs, since the parents' distances serve all alphas."""
        alphas = len(self.plan_alphas)
        if self.plan == "blocks":
            return self.block[0] * self.block[1] * alphas
        given = self.part_candidates
        part = min(max(-(-self.n_candidates // 16), 4096), 1_048_576) if isinstance(given, str) else given
        return max(1, part // alphas) * alphas
