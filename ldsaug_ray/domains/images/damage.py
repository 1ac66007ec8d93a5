"""Damaged images, to see whether a score of realness falls: blur, noise, occlusion, shuffled patches.

Randomness depends on (seed, number of the image) alone: an image is damaged alike in any batch, order or worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ldsaug_ray.domains.images.quality import Images, checked_images
from ldsaug_ray.errors import ConfigError

Kind = Literal["blur", "noise", "occlusion", "shuffled patches"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULTS: dict[Kind, float] = {"blur": 0.06, "noise": 0.15, "occlusion": 0.5, "shuffled patches": 4}
"""Strengths, see `corrupt`."""


def corrupt(
    images: Images,
    kind: Kind,
    *,
    strength: float | None = None,
    seed: int = 0,
    numbers: Sequence[int] | NDArray[np.int64] | None = None,
) -> Images:
    """Damaged copies of images uint8[N, H, W, 3].

    Args:
        kind: blur (Gaussian), noise (Gaussian, independent in every value), occlusion (a grey rectangle at a random
            place), shuffled patches (a grid of patches in a random order, never the one it had).
        strength: blur: standard deviation in image sides; noise: standard deviation in 0..1; occlusion: sides of the
            rectangle over those of the image; shuffled patches: patches along a side. None: DEFAULTS.
        numbers: each image's own number, which seeds it; by custom 0 to N − 1.

    Raises:
        InputError: images of another type or shape.
        ConfigError: an unknown kind, a strength out of range, or numbers that are not one an image.
    """
    x = checked_images(images)
    if kind not in KINDS:
        raise ConfigError(f"unknown corruption {kind!r}; possible: {', '.join(KINDS)}")
    force = DEFAULTS[kind] if strength is None else strength
    limit = min(x.shape[1:3]) if kind == "shuffled patches" else 1.0
    if not 0 < force <= limit or (kind == "shuffled patches" and (force != int(force) or force < 2)):
        wanted = f"a whole number from 2 to {limit:g}" if kind == "shuffled patches" else "above 0 and at most 1"
        raise ConfigError(f"strength of {kind} must be {wanted}; found {force}")
    of = np.arange(len(x)) if numbers is None else np.asarray(numbers)
    if of.shape != (len(x),) or of.dtype.kind not in "iu" or (of < 0).any():
        raise ConfigError(f"numbers must be one whole number from 0 on for each of {len(x)} images")
    damage = _DAMAGE[kind]
    out = np.empty_like(x)
    for at, number in enumerate(of):
        out[at] = damage(x[at], force, np.random.default_rng([seed, int(number)]))
    return out


def _blur(image: Images, force: float, rng: np.random.Generator) -> Images:
    sigma = force * min(image.shape[:2])
    return _uint8(gaussian_filter(image.astype(np.float64), (sigma, sigma, 0)))


def _noise(image: Images, force: float, rng: np.random.Generator) -> Images:
    return _uint8(image + 255 * force * rng.standard_normal(image.shape))


def _occlusion(image: Images, force: float, rng: np.random.Generator) -> Images:
    height, width = (max(1, round(force * side)) for side in image.shape[:2])
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    out = image.copy()
    out[top : top + height, left : left + width] = 128
    return out


def _shuffled(image: Images, force: float, rng: np.random.Generator) -> Images:
    grid = int(force)
    height, width = image.shape[0] // grid, image.shape[1] // grid
    order = np.arange(grid * grid)
    while (order == np.arange(grid * grid)).all():
        order = rng.permutation(grid * grid)
    out = image.copy()  # a rim that the grid does not reach stays
    for to, take in enumerate(order):
        (y, x), (v, u) = divmod(to, grid), divmod(int(take), grid)
        out[y * height : (y + 1) * height, x * width : (x + 1) * width] = image[
            v * height : (v + 1) * height, u * width : (u + 1) * width
        ]
    return out


def _uint8(values: NDArray[np.float64]) -> Images:
    return values.round().clip(0, 255).astype(np.uint8)


_DAMAGE: dict[Kind, Callable[[Images, float, np.random.Generator], Images]] = {
    "blur": _blur,
    "noise": _noise,
    "occlusion": _occlusion,
    "shuffled patches": _shuffled,
}
