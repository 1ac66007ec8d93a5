"""Codecs of images: the StyleGAN2 VAE that is trained here, and autoencoders that users bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldsaug_ray.config import Vae
from ldsaug_ray.models.codecs.base import CODECS, CodecKind

if TYPE_CHECKING:
    from ldsaug_ray.models.autoencoder import Autoencoder


class OfImages(CodecKind):
    """Made for images of one resolution."""

    domain, settings = "images", Vae

    def given(self, data: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Their side in px."""
        return {"resolution": data.resolution}


class StyleGan2(OfImages):
    """Ours."""

    def build(self, settings: Vae, given: Mapping[str, Any], seed: int) -> Autoencoder:
        from ldsaug_ray.models.stylegan2.model import build_vae

        return build_vae(settings, int(given["resolution"]), seed)

    def flop(self, settings: Vae, given: Mapping[str, Any], batch: int) -> float:
        from ldsaug_ray.models.stylegan2.model import step_flop

        return step_flop(settings, given["resolution"], batch)


class Brought(OfImages):
    """The user's: opened from its files, later rebuilt from copies of them."""

    keeps_files = True

    def build(self, settings: Vae, given: Mapping[str, Any], seed: int) -> Autoencoder:
        return self.take(settings, given)

    def take(self, settings: Vae, given: Mapping[str, Any]) -> Autoencoder:
        from ldsaug_ray.models.adapters import open_pretrained

        return open_pretrained(settings, given["resolution"])

    def rebuild(self, settings: Vae, given: Mapping[str, Any], files: Mapping[str, bytes], name: str) -> Autoencoder:
        from ldsaug_ray.models.adapters import rebuild

        return rebuild(settings, int(given["resolution"]), files, name)

    def stamp(self, settings: Vae) -> str:
        from ldsaug_ray.models.adapters import pretrained_stamp

        return pretrained_stamp(settings)


CODECS.add("stylegan2", StyleGan2())
CODECS.add("diffusers", Brought())
CODECS.add("torchscript", Brought())
