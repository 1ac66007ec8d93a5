"""What candidates are ranked by, `select.rank`: LDS, which is at hand, or what a codec says of all that it decodes.

`likelihood`: for codecs that know it the decoder's own log-likelihood of what it decodes; for images the cycle error
-||encode(decode(z)) - z||^2 / d. More is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.common.registry import Registry

RANK = "rank_score"  # column of scores by a rank that decodes


@dataclass(frozen=True)
class Rank:
    """judge(codec, z float32[M, d], batch_size) -> float64[M], the best with the most; none: LDS. words: of it.
    loss: whether it is of what a codec loses, and says nothing of one that loses nothing."""

    judge: Callable[[Any, NDArray[np.float32], int], NDArray[np.float64]] | None
    words: str
    loss: bool = False


def _likelihood(codec: Any, z: NDArray[np.float32], batch_size: int) -> NDArray[np.float64]:
    from ldsaug_ray.models import likelihoods

    return likelihoods(codec, z, batch_size)


RANKS = Registry("select.rank", Rank)
RANKS.add("lds", Rank(None, "LDS"))
RANKS.add("likelihood", Rank(_likelihood, "the model's own score of what it decodes", loss=True))
