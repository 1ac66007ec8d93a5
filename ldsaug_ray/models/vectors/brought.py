"""The codec `torchscript_rows`: a user's encoder and decoder of rows of numbers, from files, as those of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldsaug_ray.config import CommonVae
from ldsaug_ray.models.adapters.open import require
from ldsaug_ray.models.adapters.pretrained import Brought
from ldsaug_ray.models.adapters.torchscript import networks, read_files
from ldsaug_ray.models.vectors.identity import Identity

TRIED = 64  # rows


class BroughtRows(Brought, Identity):
    """Rows as the files take them, in the columns' own units; errors in units of their spread."""

    def __init__(
        self, settings: CommonVae, given: Mapping[str, Any], files: Mapping[str, bytes], names: tuple[str, str]
    ) -> None:
        super().__init__(settings, given)
        self.size, self.output_shape = f"{self.columns} values", (self.columns,)
        self.take(*networks(settings, files, names), files, names)

    def made_up(self) -> Tensor:
        """Normal draws with the training rows' mean and spread."""
        noise = torch.randn(TRIED, self.columns, generator=torch.Generator().manual_seed(0))
        return self.mean + self.spread * noise


def open_rows(settings: Any, given: Mapping[str, Any]) -> BroughtRows:
    """From the files that the settings name, tried out; raises as `open_pretrained`."""
    own, files = read_files(settings)
    model = BroughtRows(settings.model_copy(update=own), given, files, (settings.encoder, settings.decoder))
    model.try_out()
    return model


def rebuild_rows(settings: Any, given: Mapping[str, Any], files: Mapping[str, bytes], name: str) -> BroughtRows:
    """From the copies that a checkpoint keeps; raises as `rebuild`."""
    require(files, [settings.encoder, settings.decoder], name)
    return BroughtRows(settings, given, files, (f"{name}, {settings.encoder}", f"{name}, {settings.decoder}"))
