"""Whether A fills in what the training set lacks: log density of held-out real latents with A, minus that without.

Both densities have Gaussian kernels of the bandwidth that is likeliest for the training latents alone; the gain is the
mean over the held-out latents, positive where A helps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Score, Sigma
from ldsaug_ray.errors import ImpossibleError, InputError
from ldsaug_ray.lds import resolve_sigma, score_points
from ldsaug_ray.metrics.base import Latents, MeasureOfA, Members, Real, built_in


@dataclass(frozen=True, eq=False)
class Density:
    """Of the held-out latents float32[H, d] under n training latents: sigma, and log mean kernel float64[H]."""

    held_out: Latents
    n: int
    sigma: float
    log_density: NDArray[np.float64]


def density_of(real: Real) -> Density:
    """At the likeliest bandwidth. Raises InputError where there is none, or the latents cannot be scored."""
    try:
        sigma = resolve_sigma(real.train, Score(sigma=Sigma(rule="leave_one_out")), real.seed).sigma
        log_density = score_points(real.train, real.held_out, [sigma])[:, 0]
    except (ImpossibleError, InputError) as e:
        raise InputError(f"its bandwidth is that of leave_one_out, whatever score.sigma.rule: {e}") from None
    return Density(real.held_out, len(real.train), sigma, log_density)


def likelihood_gain(known: Density, a: Members) -> float:
    """The gain by A of K members, perhaps by a sample of them: the density of both is (N p_train + K p_A) / (N + K)."""
    of_a = score_points(a.z, known.held_out, [known.sigma])[:, 0]
    with_a = np.logaddexp(np.log(known.n) + known.log_density, np.log(a.total) + of_a) - np.log(known.n + a.total)
    return float((with_a - known.log_density).mean())


A_LIKELIHOOD = built_in(
    MeasureOfA(
        name="a_likelihood",
        title="A: likelihood gain",
        better="more",
        needs=("latents",),
        place=1,
        prepare=density_of,
        take=likelihood_gain,
    )
)
