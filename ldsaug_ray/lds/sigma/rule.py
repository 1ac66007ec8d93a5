"""What a rule for sigma is: it owns its fields of `score.sigma`, the computation, and the sentence that tells it.

`score.sigma.rule` names one of `SIGMA_RULES`, or a subclass or instance of `SigmaRule` of the user's own as
`package.module:Name`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import Score
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds.latents import validate_latents

Numbers = Mapping[str, float]
Fields = dict[str, float | None]


class SigmaRule(ABC):
    """One way to find sigma."""

    fields: ClassVar[Fields] = {}  # those of scale, value, share that it goes by: default, or none

    @abstractmethod
    def find(self, z: NDArray[np.floating], given: Numbers, score: Score, seed: int) -> tuple[float, dict[str, float]]:
        """Sigma, in the latents' units, and the rule's own numbers for the manifest.

        Args:
            z: the training latents, float[N, d], finite.
            given: `fields` with what the user gave, or their defaults.
            score: the section of the settings, for alphas and interpolation.
            seed: of any draw.

        Raises:
            InputError: the latents do not determine one.
        """

    @abstractmethod
    def sentence(self, numbers: Numbers) -> str:
        """What this sigma is, by the rule's own numbers: it follows "sigma = 1.2, "; without a full stop."""


SIGMA_RULES = Registry("sigma rule", SigmaRule)  # type: ignore[type-abstract]  # entries are instances


@dataclass(frozen=True)
class ChosenSigma:
    """A bandwidth, the rule of `score.sigma` that gave it, that rule's own numbers, and its sentence."""

    sigma: float
    rule: str
    numbers: dict[str, float]
    sentence: str


def resolve_sigma(train: ArrayLike, score: Score, seed: int = 0) -> ChosenSigma:
    """The bandwidth that `score.sigma` asks for, on latents float[N, d]; the same for the same latents and seed.

    Raises InputError where the latents do not determine one (all zero or equal, duplicates, a share that no bandwidth
    gives), or are invalid.
    """
    name = score.sigma.rule
    rule = SIGMA_RULES.get(name)
    sigma, numbers = rule.find(validate_latents(train), score.sigma.numbers, score, seed)
    if not (sigma > 0 and math.isfinite(sigma)):
        raise InputError(f"score.sigma.rule: {name} gives sigma = {sigma}; it must be positive and finite")
    return ChosenSigma(float(sigma), name, numbers, rule.sentence(numbers))


def sigma_sentence(entry: Mapping[str, Any]) -> str:
    """The sentence that the manifest's entry of `score` holds; entries of before it was kept have rules of ours."""
    return entry.get("sigma_sentence") or SIGMA_RULES.get(entry["sigma_rule"]).sentence(entry["sigma_numbers"])
