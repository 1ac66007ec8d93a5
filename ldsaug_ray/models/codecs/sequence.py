"""The codec of molecules: the sequence VAE, with the vocabulary of its training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldsaug_ray.models.codecs.base import CODECS, CodecKind
from ldsaug_ray.models.sequence.settings import SequenceVae

if TYPE_CHECKING:
    from ldsaug_ray.models.sequence.model import SequenceVAE


class OfMolecules(CodecKind):
    """Trained here."""

    domain, settings = "molecules", SequenceVae

    def given(self, data: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Notation, tokens, and characters of the longest SMILES."""
        return {"notation": data.notation, "tokens": facts["tokens"], "max_length": data.max_length}

    def build(self, settings: SequenceVae, given: Mapping[str, Any], seed: int) -> SequenceVAE:
        from ldsaug_ray.models.sequence.model import SequenceVAE

        return SequenceVAE(settings, given, seed)

    def flop(self, settings: SequenceVae, given: Mapping[str, Any], batch: int) -> float:
        """None worth a thread: one token follows another, each a small product."""
        return 0.0


CODECS.add("sequence", OfMolecules())
