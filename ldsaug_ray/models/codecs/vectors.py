"""Codecs of rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ldsaug_ray.config import CommonVae
from ldsaug_ray.config.base import Auto, Positive
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.models.codecs.base import CODECS, CodecKind

if TYPE_CHECKING:
    from ldsaug_ray.models.codec import Codec


class IdentityVae(CommonVae):
    """Latents are the rows themselves: nothing is trained, and what is selected is A."""

    kind: Literal["identity"] = Field("identity", description="identity: latents are the rows")
    standardise: bool | Auto = Field(
        "auto",
        description="measure each column from its mean in units of its standard deviation, undone in A; auto: named "
        "columns, not lists (embeddings, latents)",
    )

    @classmethod
    def taken_as_it_is(cls, kind: str | None) -> bool:
        """Always."""
        return True


class OfRows(CodecKind):
    """Made for rows of some columns. categories: whether it decodes to them."""

    domain, categories = "vectors", False

    def check(self, data: Any) -> None:
        """As of `CodecKind`: between two categories there is nothing."""
        if data.categories and not self.categories:
            raise ConfigError(
                f"data.categories ({', '.join(data.categories)}): between two categories there is nothing, and only "
                "vae.kind: mlp decodes to one; take it, or leave them out"
            )

    def given(self, data: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Mean and spread of the training rows' columns, and their categories."""
        return {name: facts[name] for name in ("mean", "spread", "listed", "categories") if name in facts}


class Identity(OfRows):
    """Rows as latents."""

    settings, exact = IdentityVae, True

    def build(self, settings: IdentityVae, given: Mapping[str, Any], seed: int) -> Codec:
        """As of `CodecKind`."""
        from ldsaug_ray.models.vectors.identity import Identity as Model

        plain = given["listed"] if settings.standardise == "auto" else not settings.standardise
        return Model(settings, {**given, "mean": [0.0] * len(given["mean"]), "spread": [1.0] * len(given["mean"])}
                     if plain else given)  # fmt: skip


CODECS.add("identity", Identity())


class MlpVae(CommonVae):
    """A small VAE for rows of a table, trained here."""

    kind: Literal["mlp"] = Field("mlp", description="mlp: perceptrons on both sides")
    latent_dim: Positive = Field(8, description="d, the latent's dimension")
    width: Positive = Field(128, description="units of a hidden layer")
    layers: Positive = Field(2, description="hidden layers of encoder and decoder")


class Mlp(OfRows):
    """Rows to fewer numbers, and back."""

    settings, categories = MlpVae, True

    def build(self, settings: MlpVae, given: Mapping[str, Any], seed: int) -> Codec:
        """As of `CodecKind`."""
        import torch

        from ldsaug_ray.models.vectors.mlp import Mlp as Model

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Model(settings, given)

    def flop(self, settings: MlpVae, given: Mapping[str, Any], batch: int) -> float:
        """As of `CodecKind`."""
        columns, w = len(given["mean"]), settings.width
        return 3.0 * 2 * batch * 2 * (columns * w + (settings.layers - 1) * w * w + 2 * w * settings.latent_dim)


CODECS.add("mlp", Mlp())


class RowFiles(CommonVae):
    """An encoder and a decoder of rows that the user brings."""

    kind: Literal["torchscript_rows"] = Field("torchscript_rows", description="torchscript_rows: files of the user's")
    encoder: str = Field(
        min_length=1,
        description=".pt (TorchScript) or .pt2 (torch.export) file, local or any URI: rows [N, D] to latents [N, d], "
        "or to the pair of mean and log variance",
    )
    decoder: str = Field(min_length=1, description="such a file, latents to rows")

    @classmethod
    def taken_as_it_is(cls, kind: str | None) -> bool:
        """Always."""
        return True


class TorchScriptRows(OfRows):
    """The user's."""

    settings, keeps_files = RowFiles, True

    def build(self, settings: RowFiles, given: Mapping[str, Any], seed: int) -> Codec:
        """As of `CodecKind`."""
        return self.take(settings, given)

    def take(self, settings: RowFiles, given: Mapping[str, Any]) -> Codec:
        """As of `CodecKind`."""
        from ldsaug_ray.models.vectors.brought import open_rows

        return open_rows(settings, given)

    def rebuild(self, settings: RowFiles, given: Mapping[str, Any], files: Mapping[str, bytes], name: str) -> Codec:
        """As of `CodecKind`."""
        from ldsaug_ray.models.vectors.brought import rebuild_rows

        return rebuild_rows(settings, given, files, name)

    def stamp(self, settings: RowFiles) -> str:
        """As of `CodecKind`."""
        from ldsaug_ray.models.adapters import pretrained_stamp

        return pretrained_stamp(settings)


CODECS.add("torchscript_rows", TorchScriptRows())
