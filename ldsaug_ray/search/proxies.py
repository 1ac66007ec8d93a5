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

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.config import Interpolation, Score, Sigma
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import Candidates, LatentIndex, interpolate, resolve_sigma, score_points
from ldsaug_ray.metrics import nearest_training, share_by_parents
from ldsaug_ray.metrics.nearest import flat_index, nearest_neighbours
from ldsaug_ray.search.objectives import OF_A
from ldsaug_ray.selection.threshold import id_hash

COMPARED = 10_000  # members of A that are measured
NEAREST = 1_000  # of these, as many are compared with the training latents
KNOWN = 200_000  # of their distances are kept, about 50 MB: a search may have any number of trials
HELD_OUT = 2_000  # real latents that A is compared with, at most


@dataclass(frozen=True, eq=False)
class Real:
    """What every A is measured against; made once for all trials.

    Attributes:
        train: float32[N, d], training latents, which parents are rows of.
        held_out: float32[H, d], of test images, or of a random sample of `HELD_OUT` of them.
        labels: int8[N, C] of the training images, one column an attribute: 1, -1, or 0 where not known.
        real_labels: int8[T, C] of the test images.
        sigma: bandwidth of a_likelihood; none where the training latents have no likeliest one, or it is not asked for.
        log_density: float64[H], log mean kernel of the held-out latents under the training latents; for a_likelihood.
        gaps: float64[H], distances of the held-out latents to the nearest training latent, ascending; for a_nearer.
        lacks: measure -> why it has no value for any A, of the measures that are asked for.
    """

    train: NDArray[np.float32]
    held_out: NDArray[np.float32]
    labels: NDArray[np.int8]
    real_labels: NDArray[np.int8]
    sigma: float | None
    log_density: NDArray[np.float64]
    gaps: NDArray[np.float64]
    lacks: Mapping[str, str]

    @classmethod
    def of(
        cls,
        train: NDArray[np.float32],
        held_out: NDArray[np.float32],
        labels: NDArray[np.int8],
        real_labels: NDArray[np.int8],
        seed: int,
        names: Collection[str] = OF_A,
    ) -> Real:
        """Measure of the real latents what the measures `names` of A need; of more than `HELD_OUT` held-out latents a
        random sample is taken, by the seed.

        Args:
            train, held_out, labels, real_labels: as the attributes, `held_out` of all test images, in any order.
            seed: of the sample, and of the latents that a bandwidth is sought with.
            names: of the measures that will be asked for.

        Raises:
            InputError: there are no held-out latents.
        """
        if not len(held_out):
            raise InputError("a search compares with held-out real latents; data.test must not be 0")
        # not the first: images are in the order of their keys, which begin with folders or classes
        held_out = held_out[np.sort(np.random.default_rng([seed, 1]).permutation(len(held_out))[:HELD_OUT])]
        sigma, log_density, gaps = None, np.empty(0), np.empty(0)
        lacks: dict[str, str] = {}
        if "a_likelihood" in names:
            try:
                sigma = resolve_sigma(train, Score(sigma=Sigma(rule="leave_one_out")), seed).sigma
                log_density = score_points(train, held_out, [sigma])[:, 0]
            except InputError as e:
                sigma = None
                lacks["a_likelihood"] = f"its bandwidth is that of leave_one_out, whatever score.sigma.rule: {e}"
        if "a_attribute_gap" in names and (why := _unlabelled(labels, real_labels)):
            lacks["a_attribute_gap"] = why
        if "a_nearer" in names:
            gaps = np.sort(nearest_training(train, held_out).distances)
        return cls(train, held_out, labels, real_labels, sigma, log_density, gaps, lacks)

    @cached_property
    def _index(self) -> LatentIndex:
        """Made once in each process that measures."""
        return flat_index(self.train)

    @cached_property
    def _known(self) -> dict[tuple[int, int, float, str], float]:
        """Distances to the nearest training latent that were asked for: trials have many candidates in common."""
        return {}

    def measures_of(
        self, chosen: Candidates, interpolation: Interpolation, names: Collection[str] = OF_A
    ) -> dict[str, float | None]:
        """Those of `names` for some candidates; of more than `COMPARED` a sample is measured, by a hash of the id."""
        first = np.argsort(id_hash(chosen.id))[:COMPARED]
        i, j, alpha = chosen.i[first], chosen.j[first], chosen.alpha[first]
        measure: dict[str, Callable[[], float | None]] = {
            "a_likelihood": lambda: self.likelihood_gain(
                interpolate(self.train, i, j, alpha, interpolation), len(chosen)
            ),
            "a_attribute_gap": lambda: self.attribute_gap(i, j, alpha),
            "a_nearer": lambda: self.nearer(i[:NEAREST], j[:NEAREST], alpha[:NEAREST], interpolation),
        }
        return {name: measure[name]() for name in names}

    def attribute_gap(self, i: NDArray[np.int64], j: NDArray[np.int64], alphas: NDArray[np.float64]) -> float | None:
        """Mean of `label_gap` over the attributes, of members with these parents; none where one is not known."""
        gaps = [
            label_gap(np.stack([of_train[i], of_train[j]], axis=1), alphas, of_test)
            for of_train, of_test in zip(self.labels.T, self.real_labels.T, strict=True)
        ]
        known = [gap for gap in gaps if gap is not None]
        return float(np.mean(known)) if known and len(known) == len(gaps) else None

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

    def nearer(
        self, i: NDArray[np.int64], j: NDArray[np.int64], alphas: NDArray[np.float64], interpolation: Interpolation
    ) -> float:
        """P(a member's distance to its nearest training latent < a held-out latent's) + P(equal) / 2."""
        keys = [(*key, interpolation) for key in zip(i.tolist(), j.tolist(), alphas.tolist(), strict=True)]
        if len(self._known) > KNOWN:
            self._known.clear()
        new = [row for row, key in enumerate(keys) if key not in self._known]
        if new:
            members = interpolate(self.train, i[new], j[new], alphas[new], interpolation)
            distances = nearest_neighbours(self.train, members, 1, index=self._index)[1][:, 0] ** 0.5
            self._known.update(zip((keys[row] for row in new), distances.tolist(), strict=True))
        mine = np.array([self._known[key] for key in keys])
        below, upto = (np.searchsorted(self.gaps, mine, side=side) for side in ("left", "right"))
        return float(1 - (below + upto).mean() / (2 * len(self.gaps)))


def _unlabelled(labels: NDArray[np.int8], real_labels: NDArray[np.int8]) -> str:
    """Why no A has an attribute gap, of labels int8[N, C] and int8[T, C]; nothing where one may have."""
    if not labels.shape[1]:
        return "evaluate.attributes names none"
    for column, (of_train, of_test) in enumerate(zip(labels.T, real_labels.T, strict=True)):
        if not of_test.any():
            return f"no test image has a label of evaluate.attributes[{column}]"
        if np.count_nonzero(of_train) < 2:
            return f"no two training images have a label of evaluate.attributes[{column}]"
    return ""


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
