"""The settings tree: every knob of a run, frozen, validated, documented.

A field's description is its help text (`ldsaug settings` prints them all). Defaults are the paper's values where
the paper gives one. The resolved tree is saved as `config.yaml` in the run directory.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

Auto = Literal["auto"]
Interpolation = Literal["linear", "slerp"]
Positive = Annotated[int, Field(ge=1)]
LARGEST_PART = 4_194_304  # candidates of one stored part: about 1 GB while it is written
SplitSize = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name
        annotation = cls.model_fields[name].annotation if name is not None else bool
        if isinstance(value, bool) and annotation is not bool and bool not in get_args(annotation):
            raise ValueError("true and false are not possible here")  # Python would take them for 1 and 0
        return value


class Workers(Section):
    """What one stage asks of Ray. The defaults fit a laptop and a GPU node."""

    count: Positive | Auto = Field("auto", description="actors; auto: one per GPU share, or per CPU share without GPUs")
    cpus: float = Field(1.0, gt=0, description="CPUs reserved per actor; also its thread count, rounded up")
    gpus: float | Auto = Field(
        "auto", description="GPUs per actor, fractions allowed; auto: 1 where the cluster has any"
    )
    memory_gb: float | None = Field(None, gt=0, description="memory reserved per actor, GB; none: not reserved")

    @field_validator("gpus")
    @classmethod
    def _gpus(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and (value < 0 or (value > 1 and value != int(value))):
            raise ValueError("must be 0, a fraction below 1, or a whole number")
        return value


class CpuWorkers(Workers):
    """Workers of a stage that computes on CPUs alone."""

    gpus: float | Auto = Field(0.0, description="GPUs per actor; this stage has no use for one")


class ScoreWorkers(Workers):
    """Workers of the density engine, which uses a GPU when told to."""

    gpus: float = Field(0.0, description="GPUs per actor; with any the density is computed there, by Triton")


class Ray(Section):
    """How to reach or start Ray. RAY_ADDRESS, where set, wins: the run attaches to that cluster."""

    num_cpus: Positive | None = Field(None, description="CPUs of the local Ray; none: all. Not for an existing cluster")
    num_gpus: int | None = Field(
        None, ge=0, description="GPUs of the local Ray; none: all. Not for an existing cluster"
    )
    object_store_gb: float | None = Field(
        None, ge=0.1, description="object store of the local Ray, GB; none: Ray's rule"
    )
    wait_minutes: float = Field(
        10, ge=0, description="on a cluster: how long to wait for the nodes that a stage asks for, before giving up"
    )

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of those that are given of the limits of a local Ray."""
        return tuple(n for n in ("num_cpus", "num_gpus", "object_store_gb") if getattr(self, n) is not None)


class Data(Section):
    """Where the images come from and how they become training arrays."""

    source: str = Field(
        min_length=1,
        description="image folder, Parquet file or folder, WebDataset tar(s), local or any URI; or sklearn:digits",
    )
    format: Literal["auto", "folder", "parquet", "webdataset", "digits"] = Field(
        "auto", description="layout of the source; auto: judged from what is there"
    )
    image_column: str = Field("image", description="Parquet: column with the image, struct<bytes, path> or binary")
    key_column: str | None = Field(
        None, description="Parquet: column with the unique key; none: image_id, then the image's path, then row number"
    )
    attributes: str | None = Field(
        None, description="attribute file in CelebA's text layout, 'columns' for Parquet columns, or none"
    )
    attribute_names: tuple[str, ...] | None = Field(None, description="attributes to keep; none: all that are found")
    missing_attributes: Literal["quarantine", "keep", "error"] = Field(
        "quarantine", description="an image the attribute file lacks: quarantine it, keep it without, or stop"
    )
    resolution: int = Field(256, description="side of the training images, px: a power of two from 16 to 256")
    crop: Literal["center", "none"] = Field(
        "center", description="center: largest central square, then resize; none: resize and change the aspect"
    )
    upscale: bool = Field(False, description="accept images smaller than the resolution (else they are quarantined)")
    train: SplitSize = Field(0.8, description="training images: a count, or a fraction of the keys")
    test: SplitSize = Field(0.2, description="held-out images: a count, or a fraction of the keys")
    max_quarantined_fraction: float = Field(0.05, ge=0, le=1, description="stop when more of the images are unusable")
    max_pixels: Positive = Field(
        64_000_000, description="an image with more pixels is a decompression bomb: quarantined"
    )
    # at most 512: at 256 px a part is 100 MB, and Ray Data splits blocks from 128 MiB on
    part_rows: int = Field(512, ge=16, le=512, description="images per stored part (and unit of resumable work)")
    workers: CpuWorkers = CpuWorkers()

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in (16, 32, 64, 128, 256):
            raise ValueError("must be one of 16, 32, 64, 128, 256")
        return value

    @model_validator(mode="after")
    def _split(self) -> Data:
        if self.train == 0:
            raise ValueError("train: 0 leaves nothing to train on")
        if isinstance(self.train, float) and isinstance(self.test, float) and self.train + self.test > 1 + 1e-9:
            raise ValueError(f"train + test = {self.train + self.test:g} is more than all images")
        return self


_VAE_FIELDS = {  # settings of one kind alone; all of them are needed with it
    "stylegan2": ("latent_dim", "mapping_layers"),
    "diffusers": ("path",),
    "torchscript": ("encoder", "decoder", "pixel_range"),
}


class Vae(Section):
    """The autoencoder: our own, of StyleGAN2's structure, or one that the user brings. data.resolution is its own."""

    kind: Literal["stylegan2", "diffusers", "torchscript"] = Field(
        "stylegan2",
        description="stylegan2: trained here; diffusers: AutoencoderKL or AutoencoderTiny from `path`; torchscript: "
        "files `encoder` and `decoder`",
    )
    path: str | None = Field(
        None, min_length=1, description="with diffusers: directory that save_pretrained wrote, local or any URI"
    )
    encoder: str | None = Field(
        None,
        min_length=1,
        description="with torchscript: .pt (TorchScript) or .pt2 (torch.export) file, local or any URI: pixels "
        "[N, 3, R, R] to latents [N, d] or [N, C, h, w], or to the pair of mean and log variance",
    )
    decoder: str | None = Field(None, min_length=1, description="with torchscript: such a file, latents to pixels")
    pixel_range: Literal["unit", "symmetric", "bytes"] | None = Field(
        None, description="with torchscript: pixels the files take and give: 0..1, -1..1 or 0..255"
    )
    latent_dim: Positive | None = Field(
        512, description="with stylegan2: d, the latent's dimension; a pretrained encoder has its own"
    )
    channel_base: Positive = Field(
        16384, description="channels at resolution r: min(channel_base / r, channel_max); of the discriminator too"
    )
    channel_max: Positive = Field(512, description="widest layer; of the discriminator too")
    mapping_layers: Annotated[int, Field(ge=0)] | None = Field(
        8, description="with stylegan2: layers of the mapping network z -> w"
    )

    @property
    def is_pretrained(self) -> bool:
        """Whether the user brings the model."""
        return self.kind != "stylegan2"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_stylegan2(cls, given: Any) -> Any:
        other = isinstance(given, dict) and given.get("kind", "stylegan2") != "stylegan2"
        return {**dict.fromkeys(_VAE_FIELDS["stylegan2"]), **given} if other else given

    @model_validator(mode="after")
    def _of_its_kind(self) -> Vae:
        for kind, names in _VAE_FIELDS.items():
            for name in names:
                given = getattr(self, name) is not None
                if given and kind != self.kind:
                    raise ValueError(f"{name} belongs to kind: {kind}; leave it out (or null) with kind: {self.kind}")
        if missing := [name for name in _VAE_FIELDS[self.kind] if getattr(self, name) is None]:
            raise ValueError(f"kind: {self.kind} needs {' and '.join(missing)}")
        return self


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


class Optimisation(Section):
    """What `train` and `finetune` share. To resume, run the same command again."""

    steps: Positive = Field(description="optimiser steps")
    batch_size: Positive = Field(32, description="training images per step over all workers")
    learning_rate: float = Field(2e-3, gt=0, description="Adam step size (layers have equalised learning rates)")
    adam_betas: tuple[float, float] = Field((0.0, 0.99), description="Adam's moments; StyleGAN2 uses 0, 0.99")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (AdamW)")
    ema_half_life: int = Field(
        10_000,
        ge=0,
        description="images over which the averaged weights, which the stage gives, forget half; shorter in the first "
        "twentieth of as many; 0: the last weights",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of activations; auto: bfloat16 on GPUs that have it, else float32. Weights are float32"
    )
    compile: bool = Field(False, description="torch.compile the encoder and decoder (minutes at the start)")
    gradient_clip: float | None = Field(None, gt=0, description="largest gradient norm; none: not clipped")
    horizontal_flip: bool = Field(True, description="mirror half of the training images")
    objective: Objective = Objective()
    checkpoint_every: Positive = Field(1000, description="steps between checkpoints: what a crash can cost at most")
    num_to_keep: Positive = Field(2, description="checkpoints kept while training")
    best_by: Literal["loss", "reconstruction", "perceptual", "held_out_reconstruction"] | None = Field(
        None,
        description="give the checkpoint where this term, in the mean since the one before, is smallest; "
        "held_out_reconstruction: the averaged weights' pixel loss on test images; none: the last checkpoint",
    )
    log_every: Positive = Field(50, description="steps between points of the loss curve")
    max_failures: int = Field(3, ge=0, description="worker or node losses to survive before giving up")
    shuffle_parts: Positive = Field(4, description="stored parts mixed in memory at a time when shuffling")
    workers: Workers = Workers()

    @field_validator("adam_betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= b < 1 for b in value):
            raise ValueError("both must lie in [0, 1)")
        return value

    @model_validator(mode="after")
    def _has_its_term(self) -> Optimisation:
        perceptual = self.objective.perceptual
        if self.best_by == "perceptual":
            if perceptual.network is None or not perceptual.weight:
                raise ValueError("best_by: perceptual needs objective.perceptual.network, with a weight above 0")
            if perceptual.every > self.checkpoint_every:
                raise ValueError(
                    f"best_by: perceptual needs a value for every checkpoint; objective.perceptual.every = "
                    f"{perceptual.every} is more than checkpoint_every = {self.checkpoint_every}"
                )
        return self


class Train(Optimisation):
    """Training of the baseline VAE."""

    steps: int = Field(
        100_000,
        ge=0,
        description="optimiser steps; 0, the default of pretrained autoencoders, takes them as they are",
    )


class Encode(Section):
    """Images to posterior means."""

    batch_size: Positive = Field(64, description="images per forward pass")
    workers: Workers = Workers()


_SIGMA_FIELDS: dict[str, dict[str, float | None]] = {  # what each rule goes by, and its default
    "norm_fraction": {"scale": 0.2},
    "fixed": {"value": None},
    "leave_one_out": {},
    "nearest_neighbour": {"scale": 1.0},
    "parent_share": {"share": 0.1},
}


class Sigma(Section):
    """Bandwidth of the kernel density."""

    rule: Literal["norm_fraction", "fixed", "leave_one_out", "nearest_neighbour", "parent_share"] = Field(
        "norm_fraction",
        description="norm_fraction: scale x mean L2 norm of the training latents (the paper's); fixed: value; "
        "leave_one_out: that under which each latent is likeliest among the others (in many dimensions so small that a "
        "candidate sees little but its parents); nearest_neighbour: scale x median distance of a latent to the nearest "
        "other; parent_share: that at which the own two parents hold `share` of a typical candidate's density",
    )
    scale: float | None = Field(
        None, gt=0, description="with norm_fraction (none: the paper's 0.2) or nearest_neighbour (none: 1)"
    )
    value: float | None = Field(None, ge=1e-100, le=1e100, description="with fixed: sigma itself")
    share: float | None = Field(None, gt=0, lt=1, description="with parent_share: the parents' median share; none: 0.1")

    @model_validator(mode="after")
    def _of_its_rule(self) -> Sigma:
        for name in ("scale", "value", "share"):
            if getattr(self, name) is not None and name not in _SIGMA_FIELDS[self.rule]:
                rules = " or ".join(rule for rule, fields in _SIGMA_FIELDS.items() if name in fields)
                raise ValueError(f"{name} belongs to rule: {rules}; leave it out (or null) with rule: {self.rule}")
        if self.rule == "fixed" and self.value is None:
            raise ValueError("value is needed with rule: fixed")
        return self

    def number(self, name: Literal["scale", "value", "share"]) -> float:
        """A field that the rule goes by, or its default with this rule."""
        given: float | None = getattr(self, name)
        found = _SIGMA_FIELDS[self.rule][name] if given is None else given
        assert found is not None  # `fixed` has its value
        return found


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
    plan: Literal["random", "blocks"] = Field(
        "random",
        description="random: the paper's independent pairs; blocks: every latent of a random set with every one of "
        "another, for millions of candidates at the price of matrix products",
    )
    block: tuple[Positive, Positive] = Field(
        (128, 128), description="with plan blocks: latents of the two sets; a block is a stored part"
    )
    part_candidates: Positive | Auto = Field(
        "auto",
        description="with plan random: candidates per stored part (and unit of resumable work); auto: a sixteenth of "
        "n_candidates, within 4,096..1,048,576; large ones multiply fewer parents again",
    )
    backend: Literal["exact", "faiss", "auto"] = Field(
        "exact",
        description="faiss: estimates with intervals, for very many latents; auto: what is predicted to take less time",
    )
    approximate: Approximate = Approximate()
    shard_latents: Positive = Field(
        262_144, description="training latents summed over at a time; sums of shards are merged in order"
    )
    placement: Literal["auto", "replicated", "sharded"] = Field(
        "auto",
        description="replicated: each node has all latents, in its object store; sharded: each shard lives in one "
        "actor; auto: sharded where the latents exceed latents_gb. The scores are the same",
    )
    latents_gb: float | Auto = Field(
        "auto", description="latents a node may hold, GB; auto: half of the smallest node's object store"
    )
    tile_rows: Positive = Field(32_768, description="parents held at once: bounds the memory of an actor")
    tile_latents: Positive = Field(1024, description="training latents held at once: bounds the memory of an actor")
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
    def unit_candidates(self) -> int:
        """Candidates of one unit of work: a block, or whole pairs, since the parents' distances serve all alphas."""
        alphas = len(self.alphas)
        if self.plan == "blocks":
            return self.block[0] * self.block[1] * alphas
        given = self.part_candidates
        part = min(max(-(-self.n_candidates // 16), 4096), 1_048_576) if isinstance(given, str) else given
        return max(1, part // alphas) * alphas


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


class Decode(Section):
    """Selected latents to images."""

    sharpest: float = Field(
        0.5,
        gt=0,
        le=1,
        description="with select.which: lds+sharpness: share of the decoded images that is kept, the sharpest by the "
        "variance of the Laplacian",
    )
    batch_size: Positive = Field(64, description="latents per forward pass")
    part_rows: Positive = Field(512, description="images per stored part (and unit of resumable work)")
    workers: Workers = Workers()


class Uses(Section):
    """What A is used for; uses combine (spec section 2, trap 6)."""

    pixels: float = Field(1.0, ge=0, description="weight with which decoded images join the training set (the paper)")
    adversarial: float = Field(
        0.0, ge=0, description="weight with which the discriminator judges decode(z_A): no pixel target"
    )
    cycle: float = Field(0.0, ge=0, description="weight of ||encode(decode(z_A)) - z_A||^2 / d")
    prior: bool = Field(False, description="`sample` fits its density to the latents and A")


class Finetune(Optimisation):
    """Further training on train + A, from the baseline's weights. Every arm sees the same training images."""

    steps: Positive = Field(50_000, description="optimiser steps")
    learning_rate: float = Field(1e-3, gt=0, description="Adam step size")
    mixing: float | None = Field(
        None, ge=0, description="images of A beside each training image of a batch; none: as many as in train + A"
    )
    lds_weight: float = Field(
        0.0, ge=0, description="images of A weigh LDS^lds_weight in the loss, 1 in the mean; 0: all the same"
    )
    freeze: Literal["none", "encoder", "decoder"] = Field("none", description="what is not trained further")
    uses: Uses = Uses()

    @model_validator(mode="after")
    def _has_a_judge(self) -> Finetune:
        if self.uses.adversarial and not self.objective.adversarial.weight:
            raise ValueError(
                "uses.adversarial needs a discriminator; set objective.adversarial.weight above 0, or this to 0"
            )
        return self


class LdsDetection(Section):
    """Whether log LDS tells test images from damaged copies of them, or from images of something else."""

    corruptions: tuple[Literal["blur", "noise", "occlusion", "shuffled patches"], ...] = Field(
        ("blur", "noise", "occlusion", "shuffled patches"), description="damaged copies of the test images; []: none"
    )
    others: str | None = Field(
        None,
        min_length=1,
        description="images of something else, any source that data.source takes, cropped and resized as these are",
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.1, 0.2, 0.5, 1.0), min_length=1, description="bandwidths: sigma over the mean norm of the latents"
    )


class Evaluate(Section):
    """Measures of generated images against held-out real ones. What they are drawn from, `sample` says."""

    extractor: str | None = Field(
        None,
        min_length=1,
        description="features: inception (FID's; downloaded once), inception:FILE.pt, a TorchScript FILE.pt, "
        "dinov2[:FOLDER], clip[:FOLDER]; none: `run` does not evaluate",
    )
    resize: Positive | None = Field(
        None,
        description="side, px, to which images are resized for a TorchScript file, as clean-fid does; none: as is",
    )
    n: Positive = Field(10_000, description="images drawn from each model, and about as many of A")
    models: tuple[Literal["train", "finetune"], ...] = Field(
        ("train", "finetune"), min_length=1, description="whose images: train, the baseline's; finetune's"
    )
    augmented: bool = Field(True, description="measure A too")
    k: Positive = Field(5, description="neighbours of precision, recall, density and coverage")
    attributes: tuple[str, ...] = Field(
        (), description="labelled attributes whose share among generated images is estimated, such as [Male]"
    )
    detection: LdsDetection = LdsDetection()
    batch_size: Positive = Field(64, description="images per forward pass")
    workers: Workers = Workers()


class Report(Section):
    """The page that shows what was selected."""

    samples: int = Field(
        16, ge=2, le=100, description="images per LDS band, selected ones shown with parents, and samples from N(0, I)"
    )
    bands: int = Field(5, ge=2, le=10, description="LDS bands of the contact sheet (the paper's Figure 2)")


class Sample(Section):
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
    prior: Literal["normal", "mixture", "kde"] = Field(
        "normal",
        description="what latents are drawn from: N(0, I); a Gaussian mixture fitted to the training images' latents; "
        "or their kernel density, a latent + sigma x noise",
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
    format: Literal["parquet", "png"] = Field(
        "parquet", description="Parquet in the Hugging Face image layout (key, image, z), or a PNG file an image"
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="image k depends on it and k alone; none: the run's seed"
    )
    batch_size: Positive = Field(64, description="latents per forward pass")
    part_rows: Positive = Field(512, description="images per stored part (and unit of resumable work)")
    workers: Workers = Workers()


class Tracking(Section):
    """MLflow. MLFLOW_TRACKING_URI, where set, wins over the default SQLite file in the working folder."""

    enabled: bool = Field(True, description="keep the run in MLflow")
    experiment: str = Field("ldsaug", description="MLflow experiment")
    run_name: str | None = Field(None, description="MLflow run name; none: the run directory's name")


_OF_ALL_ARMS = ("run_dir", "seed", "data", "evaluate", "experiment", "ray", "tracking")


class Arm(Section):
    """One arm of an experiment."""

    settings: dict[str, Any] = Field({}, description="what it changes: dotted name of a setting -> value")
    control: str | None = Field(None, description="arm it is compared with; none: experiment.control")
    about: str = Field("", description="what it is, for the tables")


class Experiment(Section):
    """Arms that start from one baseline, by `ldsaug experiment`. Other commands take no notice of it."""

    arms: dict[str, Arm] = Field(
        {},
        description="name -> {settings: {dotted name: value}, control: arm, about: text}; besides them there is "
        "baseline, the model before any fine-tuning",
    )
    control: str = Field("baseline", description="arm that the others are compared with, seed by seed")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0, 1, 2), min_length=1, description="of the whole run each: split, weights, candidates, batches"
    )
    train: tuple[Positive, ...] = Field((), description="training-set sizes; []: data.train alone")
    tables: dict[str, tuple[str, ...]] = Field({}, description="further tables: title -> arms, such as the paper's")

    @model_validator(mode="after")
    def _known_names(self) -> Experiment:
        if "baseline" in self.arms:
            raise ValueError("arms: baseline is there already, the model before any fine-tuning; choose another name")
        known = ["baseline", *self.arms]
        named = [("control", self.control)]
        named += [(f"arms.{name}.control", arm.control) for name, arm in self.arms.items() if arm.control is not None]
        named += [(f"tables.{title}", name) for title, names in self.tables.items() for name in names]
        for where, name in named:
            if name not in known:
                raise ValueError(f"{where}: there is no arm {name}; there are {', '.join(known)}")
        for name, arm in self.arms.items():
            if arm.control == name:
                raise ValueError(f"arms.{name}.control: an arm cannot be its own control")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+_.-]{0,60}", name):
                raise ValueError(f"arms: {name!r} is no name for a folder; use letters, digits and + _ . -")
            fixed = [n for n in arm.settings if n.strip().split(".")[0] in _OF_ALL_ARMS]
            if fixed:
                raise ValueError(
                    f"arms.{name}.settings: {', '.join(fixed)} cannot differ between arms: they would not be measured "
                    "alike"
                )
        if len({name.casefold() for name in self.arms}) < len(self.arms):
            raise ValueError("arms: two names that differ in case alone would share a folder on some file systems")
        for name, values in (("seeds", self.seeds), ("train", self.train)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: each value once")
        return self

    def control_of(self, arm: str) -> str | None:
        """What an arm is compared with: the control itself with baseline, and baseline with none."""
        if arm == "baseline":
            return None
        return self.arms[arm].control or ("baseline" if arm == self.control else self.control)


class Range(Section):
    """Values of a setting from low to high, both included."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="by ratios, not by differences")
    whole: bool = Field(False, description="whole numbers alone")
    values: Annotated[int, Field(ge=2)] | None = Field(None, description="this many, evenly spaced; none: any")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}: the range is empty")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("whole needs whole ends")
        return self


def _values_of(name: str, given: Any) -> Any:
    """A list or a range of a search's space, or ValueError in words that name the setting."""
    if isinstance(given, list | tuple):
        if not given:
            raise ValueError(f"{name}: the list is empty")
        try:
            json.dumps(given)
        except TypeError:
            raise ValueError(f"{name}: a value is neither text, number, true, false nor null (found {given})") from None
        return given
    if isinstance(given, Range):
        return given
    if not isinstance(given, dict):
        raise ValueError(f"{name} must be a list of values, or a range such as {{low: 0.1, high: 0.5}} (found {given})")
    fields = ", ".join(Range.model_fields)
    unknown = [field for field in given if field not in Range.model_fields]
    if unknown and len(unknown) == len(given):
        raise ValueError(
            f"{name} is no list and has none of {fields}; a setting's dotted name stands in one piece, as in "
            "tune.space={score.sigma.scale: [0.1, 0.2]}"
        )
    if unknown:
        raise ValueError(f"{name} has an unknown {unknown[0]}; possible: {fields}")
    try:
        return Range.model_validate(given)
    except ValidationError as e:
        error = e.errors()[0]
        field = "".join(f"{part}: " for part in error["loc"])
        raise ValueError(f"{name}: {field}{error['msg'].removeprefix('Value error, ')}") from None


Measure = Literal[
    "frechet",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "sharpness",
    "nearer",
    "attribute_gap",
    "a_likelihood",
    "a_attribute_gap",
    "a_nearer",
]


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020): of the trials that reach a rung, the better ones go on."""

    grace_steps: Positive | None = Field(
        None, description="fine-tuning steps before the first evaluation; none: no trial is stopped"
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        3, description="one of so many goes on at each rung; rungs lie this factor apart"
    )


class Tune(Section):
    """A search over settings, by `ldsaug tune`. Other commands take no notice of it."""

    space: dict[str, Range | Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        {},
        description="dotted name of a setting -> list of values, or {low, high, log, whole, values}; images, model "
        "and latents are those of the settings as they stand",
    )
    objectives: tuple[dict[Measure, Annotated[float, Field(gt=0)]], ...] = Field(
        ({"frechet": 1.0},),
        min_length=1,
        max_length=2,
        description="what is made small: {measure: weight}, summed; of measures where more is better the negative "
        "counts. Two: their Pareto front. a_likelihood, a_attribute_gap and a_nearer look at A alone and need no "
        "training",
    )
    search: Literal["tpe", "random", "grid"] = Field("tpe", description="tpe: Optuna's; grid: every combination once")
    trials: Positive = Field(24, description="with tpe and random: trials in all")
    bandwidths: Annotated[int, Field(ge=2)] = Field(
        8, description="values of a range of score.sigma that has no `values`"
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of the search; a trial's own seed is the run's. With tpe and several trials at once, points also "
        "depend on which of them ends first",
    )
    asha: Asha = Asha()
    hours: float | None = Field(None, gt=0, description="no trial starts so long after the command; none: no limit")
    concurrent: Positive | Literal["auto"] = Field(
        "auto", description="trials at once; auto: as many as fine-tunings fit in the cluster, one GPU each"
    )
    max_failures: int = Field(1, ge=0, description="a trial that crashes is tried again this often")
    register_as: str | None = Field(
        None,
        description="name in MLflow's model registry under which the best trial's VAE is registered; none: it is not",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {str(name).strip(): _values_of(str(name).strip(), values) for name, values in given.items()}

    @model_validator(mode="after")
    def _objectives_and_rungs(self) -> Tune:
        if not all(self.objectives):
            raise ValueError("objectives: each names a measure at least, such as {frechet: 1}")
        if self.asha.grace_steps is not None and len(self.objectives) > 1:
            raise ValueError("asha.grace_steps: asha ranks trials by one objective; give one, or leave it out")
        return self


class Config(Section):
    """One run, whole."""

    run_dir: str = Field(
        min_length=1, description="where everything is written: a local path or any URI pyarrow or fsspec opens"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of split, candidates, weights, batches")
    ray: Ray = Ray()
    data: Data
    vae: Vae = Vae()
    train: Train = Train()
    encode: Encode = Encode()
    score: Score = Score()
    select: Select = Select()
    decode: Decode = Decode()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    sample: Sample = Sample()
    tracking: Tracking = Tracking()
    experiment: Experiment = Experiment()
    tune: Tune = Tune()

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_train(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        vae, train = given.get("vae"), given.get("train", {})
        kind = vae.kind if isinstance(vae, Vae) else vae.get("kind") if isinstance(vae, dict) else None
        if kind in (None, "stylegan2") or not isinstance(train, dict) or "steps" in train:
            return given
        return {**given, "train": {"steps": 0, **train}}

    @model_validator(mode="after")
    def _something_to_train(self) -> Config:
        if not self.train.steps and not self.vae.is_pretrained:
            raise ValueError(
                "train.steps: 0 is for autoencoders that are trained already (vae.kind: diffusers or torchscript); "
                "with vae.kind: stylegan2 give at least 1"
            )
        return self

    @model_validator(mode="after")
    def _held_out(self) -> Config:
        if self.select.needs_held_out and not self.data.test:
            raise ValueError("select.tau: auto and select.typical compare with held-out images; set data.test above 0")
        for name in ("train", "finetune"):
            if getattr(self, name).best_by == "held_out_reconstruction" and not self.data.test:
                raise ValueError(f"{name}.best_by: held_out_reconstruction needs test images; set data.test above 0")
        return self

    @model_validator(mode="after")
    def _measurable(self) -> Config:
        given = self.evaluate
        if given.extractor is None:
            return self
        if not self.data.test:
            raise ValueError("evaluate.extractor compares with held-out images; set data.test above 0, or it to null")
        if given.attributes and self.data.attributes is None:
            raise ValueError("evaluate.attributes needs labelled images; set data.attributes")
        if isinstance(self.data.test, int) and self.data.test <= given.k:
            raise ValueError(f"data.test = {self.data.test} images have no {given.k} neighbours (evaluate.k)")
        if given.n <= given.k:
            raise ValueError(f"evaluate.n = {given.n} images have no {given.k} neighbours (evaluate.k)")
        return self

    @model_validator(mode="after")
    def _some_a(self) -> Config:
        if self.sample.with_augmented is True:
            if self.select.which == "none":
                raise ValueError("sample.with_augmented: true asks for A, but select.which: none keeps nothing")
            if self.sample.prior == "normal":
                raise ValueError("sample.with_augmented: true goes with sample.prior: mixture or kde; N(0, I) is fixed")
        return self

    def dump(self) -> dict[str, Any]:
        """The resolved tree as plain JSON/YAML types."""
        return self.model_dump(mode="json")
