"""Is A made of copies? The probability that a member lies nearer to a training latent than a held-out real one does.

0.5 is for what is as new as real images are, 1 for copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.lds import LatentIndex
from ldsaug_ray.metrics.base import Latents, MeasureOfA, Members, Real, built_in
from ldsaug_ray.metrics.copies import nearest_training
from ldsaug_ray.metrics.nearest import flat_index, nearest_neighbours

NEAREST = 1_000  # members that are compared with the training latents
KNOWN = 200_000  # of their distances are kept, about 50 MB: a search may have any number of trials


@dataclass(frozen=True, eq=False)
class Gaps:
    """Distances float64[H] of the held-out latents to the nearest of train float32[N, d], ascending; and those of
    members that were asked for, since trials have many candidates in common.
    """

    train: Latents
    gaps: NDArray[np.float64]
    known: dict[tuple[Any, ...], float] = field(default_factory=dict)

    @cached_property
    def index(self) -> LatentIndex:
        """Made once in each process that measures."""
        return flat_index(self.train)


def gaps_of(real: Real) -> Gaps:
    """Of the held-out latents."""
    return Gaps(real.train, np.sort(nearest_training(real.train, real.held_out).distances))


def nearer(known: Gaps, a: Members) -> float:
    """P(a member's distance to its nearest training latent < a held-out latent's) + P(equal) / 2."""
    a = a.some(slice(NEAREST))
    how = (a.interpolation, a.noise)
    ids = [-1] * len(a.i) if a.noise is None or a.id is None else a.id.tolist()
    keys = [(*key, *how) for key in zip(a.i.tolist(), a.j.tolist(), a.alpha.tolist(), ids, strict=True)]
    if len(known.known) > KNOWN:
        known.known.clear()
    new = [row for row, key in enumerate(keys) if key not in known.known]
    if new:
        members = a.some(np.array(new)).z
        distances = nearest_neighbours(known.train, members, 1, index=known.index)[1][:, 0] ** 0.5
        known.known.update(zip((keys[row] for row in new), distances.tolist(), strict=True))
    mine = np.array([known.known[key] for key in keys])
    below, upto = (np.searchsorted(known.gaps, mine, side=side) for side in ("left", "right"))
    return float(1 - (below + upto).mean() / (2 * len(known.gaps)))


A_NEARER = built_in(
    MeasureOfA(
        name="a_nearer", title="A: nearer", better="less", needs=("latents",), place=3, prepare=gaps_of, take=nearer
    )
)
