"""What A is worth to a classifier: one trained on the training images, on them and A, on A alone, for equal steps.

The network is small, by intention: on pixels two convolutions, on features one hidden layer. A batch of `train + A` is
half of each, so that all arms see as many images. Labels of A are its parents'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ldsaug_ray.metrics.base import MeasureOfRun, built_in
from ldsaug_ray.metrics.record import Evaluated

ARMS = ("train", "train + A", "A")
HIDDEN, LEARNING_RATE, LEVEL = 128, 1e-3, 0.95

Codes = NDArray[np.integer]
Soft = NDArray[np.float32]
Hits = NDArray[np.bool_]


def one_hot(labels: Codes, values: Codes) -> Soft:
    """float32[N, V] of labels [N]; a row of zeros where a label is none of `values`, ascending."""
    return np.asarray(labels[:, None] == values, np.float32)


def labels_by_parents(parents: Codes, alphas: ArrayLike, values: Codes, *, soft: bool) -> Soft:
    """Labels of interpolants (1 - alpha) i + alpha j from those of i and j, [K, 2]: float32[K, V].

    Soft: each parent's by its weight. Else the label where both have the same. Zeros where it is not known.
    """
    i, j = (one_hot(side, values) for side in parents.T)
    if not soft:
        return i * j
    weight = np.clip(np.asarray(alphas, np.float64), 0, 1)[:, None]
    known = i.any(1, keepdims=True) & j.any(1, keepdims=True)
    return np.asarray(((1 - weight) * i + weight * j) * known, np.float32)


def hits(
    sets: Sequence[tuple[NDArray[Any], Soft]],
    test: NDArray[Any],
    classes: Codes,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    device: str = "cpu",
) -> Hits:
    """Which test items a classifier gets right, bool[T].

    Args:
        sets: items and labels that it is trained on, as many of each in a batch: images uint8[N, R, R, 3] or features
            float32[N, C], and float32[N, V], rows that sum to 1.
        test: more items.
        classes: [T], the column that is right; -1: none is.
        steps: of Adam, learning rate 1e-3 falling as a cosine to 0.
        seed: of the weights and batches.
    """
    import torch
    from torch import nn

    numbers = np.random.default_rng([seed, len(sets)])
    width = sets[0][1].shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(test.shape[1:], width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    centre, spread = _scale([x for x, _ in sets])

    def ready(x: NDArray[Any]) -> torch.Tensor:
        scaled = torch.from_numpy((np.asarray(x, np.float32) - centre) / spread).to(device)
        return scaled.permute(0, 3, 1, 2) if scaled.ndim == 4 else scaled

    for _ in range(steps):
        each = [-(-batch_size // len(sets)), batch_size // len(sets)][: len(sets)]
        rows = [numbers.integers(len(x), size=n) for (x, _), n in zip(sets, each, strict=True)]
        x = np.concatenate([x[r] for (x, _), r in zip(sets, rows, strict=True)])
        y = torch.from_numpy(np.concatenate([y[r] for (_, y), r in zip(sets, rows, strict=True)])).to(device)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(ready(x)), y).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        found = [network(ready(test[a : a + 1000])).argmax(1).cpu().numpy() for a in range(0, len(test), 1000)]
    return np.asarray(np.concatenate(found) == classes, np.bool_)


def _scale(sets: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and spread of the first 2,000 of each; of pixels one number each, of features one a column."""
    axis = None if sets[0].ndim == 4 else 0
    some = [x[:2_000].astype(np.float32) for x in sets]
    joined = np.concatenate([x.reshape(-1) if axis is None else x for x in some])
    spread = joined.std(axis=0, dtype=np.float64)
    centre = joined.mean(axis=0, dtype=np.float64)
    return np.asarray(centre, np.float32), np.asarray(np.where(spread > 0, spread, 1), np.float32)


def _network(shape: tuple[int, ...], classes: int) -> Any:
    from torch import nn

    if len(shape) == 1:
        return nn.Sequential(nn.Linear(shape[0], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
    layers: list[nn.Module] = []
    for inside, outside in ((shape[2], 16), (16, 32)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    flat = 32 * (shape[0] // 4) * (shape[1] // 4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))


def summary(right: Mapping[str, Sequence[Hits]]) -> dict[str, Any]:
    """Accuracy of each arm with limits, and what `train + A` gains over `train`, image by image and seed by seed.

    right: arm -> what each seed got right, bool[T]. Limits are Student's of the seeds, with the variance of the test
    images' means added: they hold for other seeds and other test images, a little too wide.
    """
    arms = {arm: np.array(found, np.float64) for arm, found in right.items()}
    gains: dict[str, Any] = {"arms": {arm: {**_limits(found), **_each(found)} for arm, found in arms.items()}}
    if "train + A" in arms:
        gains["gain"] = _limits(arms["train + A"] - arms["train"])
    return gains


def _each(found: NDArray[np.float64]) -> dict[str, Any]:
    return {"by_seed": found.mean(axis=1).tolist()}


def _limits(found: NDArray[np.float64]) -> dict[str, float]:
    """Of the mean of values [S, T]."""
    seeds, images = found.shape
    variance = found.mean(axis=1).var(ddof=1) / seeds + found.mean(axis=0).var(ddof=1) / images
    value, half = float(found.mean()), float(stdtrit(seeds - 1, (1 + LEVEL) / 2) * np.sqrt(variance))
    return {"value": value, "low": value - half, "high": value + half}


def sentence(gains: Mapping[str, Any]) -> str:
    """What it says, with a full stop."""

    def words(of: Mapping[str, float], sign: str = "") -> str:
        value, low, high = (f"{100 * of[name]:{sign}.1f}" for name in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    alone = f"A classifier of {gains['label']} gets {words(gains['arms']['train'])} % of test images right"
    if (gain := gains.get("gain")) is None:
        return f"{alone}; there is no A that it could learn from."
    beyond = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "no difference beyond chance"
    with_a = f"with A {words(gains['arms']['train + A'])} %, on A alone {words(gains['arms']['A'])} %"
    return f"{alone}, {with_a}. A adds {words(gain, '+')} points, by {gains['seeds']} seeds: {beyond}."


def _gain(found: Evaluated, name: str) -> float | None:
    return None if found.downstream is None else found.downstream.get("gain", {}).get("value")


DOWNSTREAM = built_in(
    MeasureOfRun(
        name="downstream",
        title="accuracy that A adds to a classifier",
        better="more",
        needs=("downstream",),
        take=_gain,
    )
)
