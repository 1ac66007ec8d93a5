"""What a training makes small: sections `train.objective` and `finetune.objective`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ldsaug_ray.config.base import Auto, Positive, Section


class Perceptual(Section):
    """A distance between features of a network that the user supplies."""

    network: str | None = Field(
        None,
        description="TorchScript file, images to features [N, C] or maps [N, C, h, w]; or lpips; none: no such term",
    )
    weight: float = Field(1.0, ge=0, description="weight of the distance beside the pixel loss")
    pixel_range: Literal["bytes", "unit", "symmetric"] = Field(
        "bytes", description="what the TorchScript file takes: pixels in 0..255, 0..1 or -1..1"
    )
    every: Positive = Field(1, description="steps between evaluations, with the weight multiplied: for slow networks")


class Adversarial(Section):
    """A StyleGAN2 discriminator and what it asks of the decoder."""

    weight: float = Field(0.0, ge=0, description="weight of the non-saturating loss; 0: no discriminator")
    reconstructions: float = Field(1.0, ge=0, description="share of reconstructions in that loss")
    samples: float = Field(1.0, ge=0, description="share of images decoded from N(0, I) in that loss")
    start_step: int = Field(0, ge=0, description="step from which on there is a discriminator")
    learning_rate: float | None = Field(None, gt=0, description="of the discriminator; none: as the VAE's")
    r1_gamma: float | Auto = Field(
        "auto", description="weight of the gradient penalty R1 (halved, as in the paper); auto: 0.0002 side^2 / batch"
    )
    r1_every: Positive = Field(16, description="steps between R1's evaluations, with the weight multiplied (lazy)")
    stddev_group: Positive = Field(4, description="images over which the minibatch standard deviation is taken")
    style_mixing: float = Field(
        0.0, ge=0, le=1, description="probability that a sample from N(0, I) takes its later styles from another"
    )
    path_length: float = Field(0.0, ge=0, description="weight of path length regularisation; StyleGAN2: 2; 0: none")
    path_length_every: Positive = Field(4, description="steps between its evaluations, with the weight multiplied")
    augment: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        ("color", "translation", "cutout"),
        description="DiffAugment: what the discriminator's images, real and not, go through; []: nothing",
    )
    augment_probability: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = Field(
        1.0, description="of each of them for each image; adaptive: raised while the discriminator overfits (ADA)"
    )
    ada_target: float = Field(0.6, gt=0, lt=1, description="with adaptive: mean sign of the logits of real images")
    ada_images: Positive = Field(100_000, description="with adaptive: images over which the probability can rise to 1")

    @field_validator("r1_gamma")
    @classmethod
    def _gamma(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value < 0:
            raise ValueError("must be at least 0")
        return value

    @model_validator(mode="after")
    def _judges_something(self) -> Adversarial:
        if self.weight and not (self.reconstructions or self.samples):
            raise ValueError("reconstructions and samples are both 0: the discriminator would judge nothing")
        return self


class Objective(Section):
    """Reconstruction + KL + adversarial terms (vae/losses.py, vae/adversarial.py)."""

    reconstruction: Literal["l1", "l2", "charbonnier"] = Field("l1", description="pixel loss, pixels in -1..1")
    reconstruction_weight: float = Field(1.0, ge=0, description="weight of the pixel loss")
    perceptual: Perceptual = Perceptual()
    beta: float = Field(1.0, ge=0, description="weight of KL(q(z|x) || N(0, I)) in nats per pixel value")
    kl_warmup_steps: int = Field(0, ge=0, description="steps over which beta rises linearly from 0")
    free_bits: float = Field(
        0.0, ge=0, description="nats per latent dimension, in the mean over the batch, below which KL is not penalised"
    )
    adversarial: Adversarial = Adversarial()
