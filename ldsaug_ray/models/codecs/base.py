"""What a kind of codec is: of which domain, with which settings, and how a model of it comes about."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import CommonVae

if TYPE_CHECKING:
    from ldsaug_ray.models.codec import Codec


class CodecKind(ABC):
    """A kind of codec. domain: whose; settings: section `vae`, with its name as `kind`; exact:
    latents are the items, so that there is nothing to reconstruct or to fine-tune; keeps_files: its models
    hold copies of the user's.

    `given` is what a model depends on beside its settings, as JSON: a resolution, a vocabulary. A checkpoint holds it.
    """

    domain: ClassVar[str]
    settings: ClassVar[type[CommonVae]]
    exact: ClassVar[bool] = False
    keeps_files: ClassVar[bool] = False

    def check(self, data: Any) -> None:
        """Raises ConfigError where items by these settings, section `data`, have what it has no place for."""
        return

    @abstractmethod
    def given(self, data: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """From section `data` and what the domain learned of the training items."""

    @abstractmethod
    def build(self, settings: Any, given: Mapping[str, Any], seed: int) -> Codec:
        """A new model on the CPU, weights by the arguments alone. Raises ConfigError for settings that do not fit."""

    def rebuild(self, settings: Any, given: Mapping[str, Any], files: Mapping[str, bytes], name: str) -> Codec:
        """One that weights are to be loaded into; files: those that the model kept; name: of the checkpoint."""
        return self.build(settings, given, 0)

    def take(self, settings: Any, given: Mapping[str, Any]) -> Codec:
        """One that is trained already (`settings.is_pretrained`), tried out. Raises InputError where it is useless."""
        return self.build(settings, given, 0)

    def stamp(self, settings: Any) -> str:
        """Identity of files that the settings name; '' without any. Raises InputError for one that is not there."""
        return ""

    def flop(self, settings: Any, given: Mapping[str, Any], batch: int) -> float:
        """Floating-point operations of a training step, about: small steps get one thread. By custom not small."""
        return math.inf


CODECS: Registry[CodecKind] = Registry("codec", CodecKind)  # type: ignore[type-abstract]
