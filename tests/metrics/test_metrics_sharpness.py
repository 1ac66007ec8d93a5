"""The variance of the Laplacian against scipy's own Laplacian in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import sharpness


def oracle(image: np.ndarray) -> float:
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    return float(ndimage.laplace(grey, mode="nearest").var())


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (7, 3), (32, 32), (256, 256)])
def test_against_scipy(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, *shape, 3), np.uint8)
    np.testing.assert_allclose(sharpness(images), [oracle(x) for x in images], rtol=1e-10, atol=1e-9)


def test_closed_forms() -> None:
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)  # inside, every neighbour is the other colour
    images = np.stack([np.full((8, 8, 3), 77, np.uint8), np.repeat(board[..., None], 3, 2)])
    flat, checked = sharpness(images)
    assert flat == 0
    assert checked == pytest.approx(oracle(images[1]), rel=1e-12)
    spot = np.zeros((1, 9, 9, 3), np.uint8)
    spot[0, 4, 4] = 100  # -400 once, 100 four times, sum 0: (160000 + 40000) / 81
    assert sharpness(spot)[0] == 200_000 / 81


def test_blur_lowers_it_and_each_image_stands_alone() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, 40, 40, 3), np.uint8)
    blurred = np.stack([ndimage.gaussian_filter(x, (1.5, 1.5, 0)) for x in images])
    assert (sharpness(blurred) < 0.1 * sharpness(images)).all()
    np.testing.assert_array_equal(sharpness(images)[1:2], sharpness(images[1:2]))
    assert sharpness(images[:0]).shape == (0,)


def test_no_sum_overflows() -> None:
    """The largest Laplacians there are, in an image of 12 megapixels."""
    board = (np.indices((3000, 4000)).sum(0) % 2 * 255).astype(np.uint8)
    image = np.broadcast_to(board[..., None], (3000, 4000, 3))[None]
    assert sharpness(image)[0] == pytest.approx(oracle(image[0]), rel=1e-12)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4, 4, 3), float), ((4, 4, 3), np.uint8), ((1, 0, 4, 3), np.uint8)])
def test_other_arrays(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(InputError, match=r"uint8\[N, H, W, 3\]"):
        sharpness(np.zeros(shape, dtype))
