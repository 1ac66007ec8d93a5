"""Section `sample`: images drawn from a trained model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.common.registry import room_of
from ldsaug_ray.config.base import Auto, Positive, Section
from ldsaug_ray.config.workers import Workers


class Drawn(Section):
    """Candidates that images are drawn from: with prior interpolants one an image, with lds the densest of some."""

    plan: Literal["auto", "random", "neighbours", "single"] = Field(
        "auto",
        description="the other parent of a candidate: random, any; neighbours, one of the nearest; single, none: noise "
        "about one latent; auto: random with interpolants, single with lds",
    )
    neighbours: Positive = Field(10, description="with plan neighbours: nearest others of a latent")
    alphas: tuple[float, ...] = Field(
        tuple(m / 10 for m in range(1, 10)), min_length=1, description="weights of the other parent, each as likely"
    )
    noise: Annotated[float, Field(ge=0, le=100)] | Auto = Field(
        "auto",
        description="isotropic noise: its norm, as a share of the median distance of a latent to the nearest other; "
        "auto: 0 with interpolants, 0.75 with lds",
    )
    of: Positive = Field(60, description="with lds: candidates of each latent at a time")
    keep: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="with lds: share of them that images are drawn from, the densest"
    )
    scale: float = Field(0.12, gt=0, description="with lds: bandwidth of the density over the mean norm of latents")
    exclude_parents: bool = Field(True, description="with lds: leave the candidate's own parents out of its density")


class Sampling(Section):
    """Images drawn from a trained model, by `ldsaug sample`; not part of `run`."""

    n: Positive = Field(50_000, description="images to draw; the option --n replaces it")
    out: str | None = Field(
        None,
        min_length=1,
        description="folder or URI to write to; none: samples/ of the run directory; the option --out replaces it",
    )
    model: Literal["auto", "train", "finetune"] = Field(
        "auto",
        description="whose decoder: train, the baseline's, or finetune; auto: finetune where it is complete",
    )
    prior: str = Field(
        "normal",
        description="what latents are drawn from. {PRIORS}",
    )
    components: Positive = Field(10, description="with mixture: Gaussians")
    covariance: Literal["auto", "full", "diag"] = Field(
        "auto",
        description="with mixture: covariance matrices; auto: full where that has no more parameters than the latents "
        "have values, else diagonal",
    )
    sigma: Annotated[float, Field(ge=0)] | Literal["leave_one_out"] = Field(
        "leave_one_out",
        description="with kde: standard deviation of the noise in each dimension; leave_one_out: under which each "
        "latent is likeliest among the others. Not the score's sigma: the noise's norm is sigma sqrt(d), so that the "
        "paper's fifth of the mean norm is, at d = 512, 4.5 times as long as the latents; 0: the latents themselves",
    )
    with_augmented: bool | Auto = Field(
        "auto",
        description="with mixture and kde: fit to the latents and to A's, weighted by finetune.lds_weight; auto: where "
        "finetune.uses.prior is set and the fine-tuned model samples",
    )
    candidates: Drawn = Drawn()
    format: Literal["parquet", "png"] = Field(
        "parquet", description="Parquet in the Hugging Face image layout (key, image, z), or a PNG file an image"
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="image k depends on it and k alone; none: the run's seed"
    )
    batch_size: Positive = Field(64, description="latents per forward pass")
    part_rows: Positive = Field(512, description="images per stored part (and unit of resumable work)")
    workers: Workers = Workers()

    @property
    def source(self) -> Any:
        """The `models.priors.Prior` that `prior` names."""
        return room_of("models.priors").PRIORS.get(self.prior)

    @field_validator("prior")
    @classmethod
    def _known(cls, prior: str) -> str:
        return str(room_of("models.priors").PRIORS.check(prior))

    @model_validator(mode="after")
    def _noise_about_latents(self) -> Sampling:
        how = self.candidates
        plan = how.plan if how.plan != "auto" else "single" if self.prior == "lds" else "random"
        noise = how.noise if how.noise != "auto" else 0.75 if self.prior == "lds" else 0
        if self.prior in ("interpolants", "lds") and plan == "single" and not noise:
            raise ValueError(
                f"candidates.noise: prior {self.prior} with plan: single is noise about latents; set it above 0"
            )
        return self
