"""What a search makes small: measures of a run's `metrics.json`, or of A alone, as one number or two.

The measures of A need no training (`measures_of_a`), so that a search by them is cheap:

- a_likelihood: mean log density of held-out real latents under a Gaussian kernel density of the training latents and A,
  minus the same without A, at the bandwidth that is likeliest for the training latents alone: positive where A fills
  in what the training set lacks;
- a_attribute_gap: how far the share of an attribute among A, its parents' labels weighted by their nearness, is from
  its share among test images; the mean over `evaluate.attributes`;
- a_nearer: probability that a member of A lies nearer to a training latent than a held-out real latent does; 0.5 for
  what is as new as real images are, 1 for copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.config.settings import Measure
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import score_points
from ldsaug_ray.metrics import nearest_training

MORE_IS_BETTER = {"precision", "recall", "density", "coverage", "sharpness", "a_likelihood"}
OF_A = ("a_likelihood", "a_attribute_gap", "a_nearer")
COMPARED = 1000  # members of A whose distance to the training latents is taken


def needs_training(objectives: Sequence[Mapping[Measure, float]]) -> bool:
    """Whether a trial must fine-tune and evaluate."""
    return any(measure not in OF_A for objective in objectives for measure in objective)


def objective_values(
    objectives: Sequence[Mapping[Measure, float]], measures: Mapping[str, float | None]
) -> list[float]:
    """Each objective's weighted sum; less is better.

    Raises:
        InputError: a measure has no value for these images.
    """
    values = []
    for objective in objectives:
        total = 0.0
        for measure, weight in objective.items():
            value = measures.get(measure)
            if value is None:
                raise InputError(f"tune.objectives: {measure} has no value for these images; see the trial's notes")
            total += weight * (-value if measure in MORE_IS_BETTER else value)
        values.append(total)
    return values


def measures_of_run(told: Mapping[str, Any]) -> dict[str, float | None]:
    """Measures of the fine-tuned model's images, from `metrics.json`; attribute_gap is the mean over the attributes."""
    numbers = told["sets"]["finetuned"]
    measures = {name: found.get("value") for name, found in numbers.items() if isinstance(found, Mapping)}
    gaps = []
    for found in told["attributes"].values():
        here, real = (found["shares"][name]["value"] for name in ("finetuned", "test"))
        gaps.append(None if here is None or real is None else abs(here - real))
    known = [gap for gap in gaps if gap is not None]
    measures["attribute_gap"] = float(np.mean(known)) if known and len(known) == len(gaps) else None
    return measures


def likelihood_gain(train: ArrayLike, held_out: ArrayLike, of_a: ArrayLike, sigma: float) -> float:
    """Mean log density of held-out latents float[H, d] with A float[K, d] beside the training latents float[N, d],
    minus the same without; the kernel's normaliser is the same in both."""
    base, points, more = (np.asarray(x, np.float32) for x in (train, held_out, of_a))
    before = score_points(base, points, [sigma])[:, 0]
    after = score_points(np.concatenate([base, more]), points, [sigma])[:, 0]
    return float((after - before).mean())


def label_gap(parents: NDArray[np.int8], alphas: NDArray[np.float64], real: NDArray[np.int8]) -> float | None:
    """|share among A − share among real images| of an attribute with labels 1, −1, or 0 for unknown.

    Args:
        parents: int8[K, 2], labels of each member's parents i and j.
        alphas: float64[K]; the member is (1 − α) i + α j.
        real: int8[T], labels of test images.

    Returns: None where no member has two labelled parents, or no test image a label.
    """
    known, labelled = (parents != 0).all(axis=1), real != 0
    if not known.any() or not labelled.any():
        return None
    i, j = (parents[known] > 0).T
    weight = np.clip(alphas[known], 0, 1)
    return float(abs(((1 - weight) * i + weight * j).mean() - (real[labelled] > 0).mean()))


def nearer_than_real(train: ArrayLike, held_out: ArrayLike, of_a: ArrayLike, seed: int) -> float:
    """P(distance of a member of A to its nearest training latent < that of a held-out latent) + P(equal) / 2."""
    members = np.asarray(of_a, np.float32)
    if len(members) > COMPARED:
        members = members[np.sort(np.random.default_rng([seed, 1]).choice(len(members), COMPARED, replace=False))]
    mine = nearest_training(train, members).distances
    theirs = np.sort(nearest_training(train, held_out).distances)
    below, upto = (np.searchsorted(theirs, mine, side=side) for side in ("left", "right"))
    return float(1 - (below + upto).mean() / (2 * len(theirs)))
