"""Measures of A that need no training, so that a search by them is cheap and can narrow an expensive one.

- a_likelihood: mean log density of held-out real latents under a Gaussian kernel density of the training latents and A,
  minus the same without A, at the bandwidth that is likeliest for the training latents alone: positive where A fills
  in what the training set lacks;
- a_attribute_gap: how far the share of an attribute among A, its parents' labels weighted by their nearness, is from
  its share among test images; the mean over `evaluate.attributes`;
- a_nearer: probability that a member of A lies nearer to a training latent than a held-out real latent does; 0.5 for
  what is as new as real images are, 1 for copies.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config.settings import Interpolation, Score, Sigma
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import Candidates, interpolate, resolve_sigma, score_points
from ldsaug_ray.metrics import nearest_training, share_by_parents

COMPARED = 10_000  # members of A that are measured
NEAREST = 1_000  # of these, as many are compared with the training latents
HELD_OUT = 2_000  # real latents that A is compared with


@dataclass(frozen=True, eq=False)
class Real:
    """What every A is measured against; made once for all trials.

    Attributes:
        train: float32[N, d], training latents, which parents are rows of.
        held_out: float32[H, d], of test images.
        labels: int8[N, C] of the training images, one column an attribute: 1, -1, or 0 where not known.
        real_labels: int8[T, C] of the test images.
        sigma: bandwidth of a_likelihood; none where the training latents have no likeliest one.
        log_density: float64[H], log mean kernel of the held-out latents under the training latents.
        gaps: float64[H], distances of the held-out latents to the nearest training latent, ascending.
    """

    train: NDArray[np.float32]
    held_out: NDArray[np.float32]
    labels: NDArray[np.int8]
    real_labels: NDArray[np.int8]
    sigma: float | None
    log_density: NDArray[np.float64]
    gaps: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        train: NDArray[np.float32],
        held_out: NDArray[np.float32],
        labels: NDArray[np.int8],
        real_labels: NDArray[np.int8],
        seed: int,
    ) -> Real:
        """Measure the real latents; of more than `HELD_OUT` held-out ones the first are taken.

        Raises:
            InputError: there are no held-out latents.
        """
        held_out = held_out[:HELD_OUT]
        if not len(held_out):
            raise InputError("a search compares with held-out real latents; data.test must not be 0")
        sigma = None
        with suppress(InputError):
            sigma = resolve_sigma(train, Score(sigma=Sigma(rule="leave_one_out")), seed).sigma
        return cls(
            train,
            held_out,
            labels,
            real_labels,
            sigma,
            np.empty(0) if sigma is None else score_points(train, held_out, [sigma])[:, 0],
            np.sort(nearest_training(train, held_out).distances),
        )

    def measures_of(self, chosen: Candidates, interpolation: Interpolation, seed: int) -> dict[str, float | None]:
        """a_likelihood, a_attribute_gap and a_nearer of some candidates; of more than `COMPARED` a random sample."""
        total = len(chosen)
        taken = np.arange(total)
        if total > COMPARED:
            taken = np.sort(np.random.default_rng([seed, 1]).choice(total, COMPARED, replace=False))
        i, j, alpha = chosen.i[taken], chosen.j[taken], chosen.alpha[taken]
        members = interpolate(self.train, i, j, alpha, interpolation)
        gaps = [
            label_gap(np.stack([of_train[i], of_train[j]], axis=1), alpha, of_test)
            for of_train, of_test in zip(self.labels.T, self.real_labels.T, strict=True)
        ]
        known = [gap for gap in gaps if gap is not None]
        return {
            "a_likelihood": self.likelihood_gain(members, total),
            "a_attribute_gap": float(np.mean(known)) if known and len(known) == len(gaps) else None,
            "a_nearer": self.nearer(members),
        }

    def likelihood_gain(self, members: NDArray[np.float32], total: int) -> float | None:
        """Mean log density of the held-out latents with A beside the training latents, minus that without.

        Args:
            members: float32[M, d], of A or a sample of it.
            total: members that A has, K: the density of both is (N p_train + K p_A) / (N + K).
        """
        if self.sigma is None:
            return None
        n = len(self.train)
        of_a = score_points(members, self.held_out, [self.sigma])[:, 0]
        with_a = np.logaddexp(np.log(n) + self.log_density, np.log(total) + of_a) - np.log(n + total)
        return float((with_a - self.log_density).mean())

    def nearer(self, members: NDArray[np.float32]) -> float:
        """P(a member's distance to its nearest training latent < a held-out latent's) + P(equal) / 2."""
        if len(members) > NEAREST:  # in the plan's order the alphas take turns: no stride
            members = members[np.random.default_rng([len(members), 2]).choice(len(members), NEAREST, replace=False)]
        mine = nearest_training(self.train, members).distances
        below, upto = (np.searchsorted(self.gaps, mine, side=side) for side in ("left", "right"))
        return float(1 - (below + upto).mean() / (2 * len(self.gaps)))


def label_gap(parents: NDArray[np.int8], alphas: NDArray[np.float64], real: NDArray[np.int8]) -> float | None:
    """|share among A − share among real images| of an attribute with labels 1, −1, or 0 for unknown.

    Args:
        parents: int8[K, 2], labels of each member's parents i and j.
        alphas: float64[K]; the member is (1 − α) i + α j.
        real: int8[T], labels of test images.

    Returns: None where no member has two labelled parents, or no test image a label.
    """
    share, labelled = share_by_parents(parents, alphas), real != 0
    if share is None or not labelled.any():
        return None
    return float(abs(share - (real[labelled] > 0).mean()))
