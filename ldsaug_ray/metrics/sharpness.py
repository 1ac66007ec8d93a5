"""Sharpness of an image: the variance of its Laplacian, the "SS" of the paper's Table 1.

An edge is where the second derivative is large; a blurred image has few, so its Laplacian varies little (Pech-Pacheco
et al. 2000, "Diatom autofocusing in brightfield microscopy"; LAPV of Pertuz et al. 2013). It compares images of the
same size and subject: noise is sharp too, and a larger picture of the same thing is smoother pixel by pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics.base import Measure, Sample, built_in
from ldsaug_ray.metrics.record import Reading

LUMA = np.array([299, 587, 114], np.int64)  # ITU-R BT.601, in thousandths


def sharpness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Variance of the Laplacian of each grey image: uint8[N, H, W, 3] -> float64[N], grey values in 0..255.

    Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). The Laplacian is the kernel [0 1 0; 1 -4 1; 0 1 0]; beyond the
    border the nearest pixel is repeated. The variance is over all H W pixels (divided by their number). Sums are taken
    in whole numbers, so that the result is exact but for its rounding, on any machine; one image is in work at a time.

    Raises InputError for another shape or dtype.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise InputError(f"images must be uint8[N, H, W, 3]; found {images.dtype}{list(images.shape)}")
    return np.array([_variance(_laplacian(image)) for image in images], np.float64)


def _laplacian(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Of the grey image in thousandths, int64[H, W]."""
    grey = np.pad(image @ LUMA, 1, mode="edge")
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.asarray(neighbours - 4 * grey[1:-1, 1:-1])


def _variance(values: NDArray[np.int64]) -> float:
    """(n sum x^2 - (sum x)^2) / n^2, back in whole grey values."""
    n, total = values.size, int(values.sum())
    squares = sum(np.square(values).sum(axis=1).tolist())  # Python's integers: n^2 times a square is beyond 64 bits
    return (n * squares - total * total) / (n * n * 1_000_000)


def _taken(sample: Sample) -> Reading:
    values = np.asarray(sample.quality["sharpness"], np.float64)
    return Reading(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


# more of it is what a search seeks, but noise is sharp too: no table says that more is better
SHARPNESS = built_in(
    Measure(
        name="sharpness",
        title="sharpness",
        better="more",
        agreed=False,
        needs=("sharpness",),
        place=7,
        take=_taken,
        terms=lambda sample: {"features": sample.quality["sharpness"]},
    )
)
