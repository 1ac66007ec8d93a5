"""Section `vae`: the autoencoder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ldsaug_ray.config.base import Positive, Section

_VAE_FIELDS = {  # settings of one kind alone; all of them are needed with it
    "stylegan2": ("latent_dim", "mapping_layers"),
    "diffusers": ("path",),
    "torchscript": ("encoder", "decoder", "pixel_range"),
}


class CommonVae(Section):
    """What makes latents of items and items of latents: the settings of every kind have this."""

    kind: str

    @property
    def is_pretrained(self) -> bool:
        """Whether there is nothing to train, unless it is asked for."""
        return type(self).taken_as_it_is(self.kind)

    @classmethod
    def taken_as_it_is(cls, kind: str | None) -> bool:
        """The same by its name, before the settings are there; none: the kind by default."""
        return False


class Vae(CommonVae):
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

    @classmethod
    def taken_as_it_is(cls, kind: str | None) -> bool:
        """Whether the user brings the model."""
        return kind not in (None, "stylegan2")

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
