"""What a rule for sigma is: it owns its fields of `score.sigma`, the computation, and the sentence that tells it.

`score.sigma.rule` names one of `SIGMA_RULES`, or a `SigmaRule` of the user's own as `package.module:Name`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.common.registry import Registry
from ldsaug_ray.config import Score
from ldsaug_ray.errors import ImpossibleError, failing
from ldsaug_ray.lds.latents import validate_latents

Latents = NDArray[np.floating]
Numbers = dict[str, float]


@dataclass(frozen=True)
class SigmaRule:
    """One way to find sigma.

    fields: which of scale, value, share it goes by, with their defaults; none: it must be given.
    find: from the training latents float[N, d], those fields' values, the section `score` and the seed of any draw:
        sigma, in the latents' units, and the rule's own numbers for the manifest. Raises ImpossibleError where the
        latents do not determine one.
    sentence: what this sigma is, from those numbers: it follows "sigma = 1.2, " and has no full stop.
    words: what it is, for the help; pairs: whether it looks at random pairs without noise, which no other plan has.
    """

    fields: Mapping[str, float | None]
    find: Callable[[Latents, Numbers, Score, int], tuple[float, Numbers]]
    sentence: Callable[[Numbers], str]
    words: str = ""
    pairs: bool = False


SIGMA_RULES = Registry("sigma rule", SigmaRule)


@dataclass(frozen=True)
class ChosenSigma:
    """A bandwidth, the rule of `score.sigma` that gave it, that rule's own numbers, and its sentence."""

    sigma: float
    rule: str
    numbers: Numbers
    sentence: str


def resolve_sigma(train: ArrayLike, score: Score, seed: int = 0) -> ChosenSigma:
    """The bandwidth that `score.sigma` asks for, on latents float[N, d]; the same for the same latents and seed.

    Raises ImpossibleError where the latents do not determine one (duplicates, a share that no bandwidth gives),
    InputError where they are invalid, all zero or equal, or a rule of the user's own fails.
    """
    name = score.sigma.rule
    rule = SIGMA_RULES.get(name)
    z = validate_latents(train)
    with failing(f"score.sigma.rule {name}", own=":" in name):
        sigma, numbers = rule.find(z, score.sigma.numbers, score, seed)
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ImpossibleError(f"score.sigma.rule: {name} gives sigma = {sigma}; it must be positive and finite")
        return ChosenSigma(float(sigma), name, numbers, rule.sentence(numbers))


def sigma_sentence(entry: Mapping[str, Any]) -> str:
    """The sentence that the manifest's entry of `score` holds; entries of before it was kept have rules of ours."""
    return entry.get("sigma_sentence") or SIGMA_RULES.get(entry["sigma_rule"]).sentence(entry["sigma_numbers"])
