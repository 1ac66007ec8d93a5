"""Arrays of images: checked, and how sharp each is: the variance of its Laplacian, the "SS" of the paper's Table 1.

An edge is where the second derivative is large; a blurred image has few, so its Laplacian varies little (Pech-Pacheco
et al. 2000, "Diatom autofocusing in brightfield microscopy"; LAPV of Pertuz et al. 2013). It compares images of the
same size and subject: noise is sharp too, and a larger picture of the same thing is smoother pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.errors import InputError

Images = NDArray[np.uint8]

LUMA = np.array([299, 587, 114], np.int64)  # ITU-R BT.601, in thousandths


def sharpness(images: Images) -> NDArray[np.float64]:
    """Variance of the Laplacian of each grey image: uint8[N, H, W, 3] -> float64[N], grey values in 0..255.

    Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). The Laplacian is the kernel [0 1 0; 1 -4 1; 0 1 0]; beyond the
    border the nearest pixel is repeated. The variance is over all H W pixels (divided by their number). Sums are taken
    in whole numbers, so that the result is exact but for its rounding, on any machine; one image is in work at a time.

    Raises InputError for another shape or dtype.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise InputError(f"images must be uint8[N, H, W, 3]; found {images.dtype}{list(images.shape)}")
    return np.array([_variance(_laplacian(image)) for image in images], np.float64)


def _laplacian(image: Images) -> NDArray[np.int64]:
    """Of the grey image in thousandths, int64[H, W]."""
    grey = np.pad(image @ LUMA, 1, mode="edge")
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.asarray(neighbours - 4 * grey[1:-1, 1:-1])


def _variance(values: NDArray[np.int64]) -> float:
    """(n sum x^2 - (sum x)^2) / n^2, back in whole grey values."""
    n, total = values.size, int(values.sum())
    squares = sum(np.square(values).sum(axis=1).tolist())  # Python's integers: n^2 times a square is beyond 64 bits
    return (n * squares - total * total) / (n * n * 1_000_000)


def checked_images(images: Images | Sequence[Images]) -> Images:
    """Images as uint8[N, H, W, 3].

    Raises:
        InputError: another type or shape, or images of different sizes.
    """
    if not isinstance(images, np.ndarray):
        sizes = sorted({np.asarray(image).shape for image in images})
        if len(sizes) > 1:
            shown = ", ".join(" x ".join(map(str, size)) for size in sizes[:3])
            raise InputError(f"images of different sizes ({shown}); bring them to one size first")
        images = np.stack([np.asarray(image) for image in images]) if sizes else np.empty((0, 1, 1, 3), np.uint8)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise InputError(f"images must be uint8[N, H, W, 3], RGB; found {images.dtype}{list(images.shape)}")
    return images
