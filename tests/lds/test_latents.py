from __future__ import annotations

import numpy as np
import pytest

from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import interpolate, validate_latents

rng = np.random.default_rng(0)


def test_good_latents_are_not_copied() -> None:
    mapped = np.ones((3, 2), np.float32)
    mapped.flags.writeable = False
    for z in (np.ones((3, 2), np.float32), np.ones((3, 2)), np.ones((6, 2), np.float32)[2:], mapped):
        assert np.shares_memory(validate_latents(z), z)
    assert validate_latents([[1, 2], [3, 4]]).dtype == np.float64


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_rows_are_named_and_counted(value: float) -> None:
    z = np.zeros((2_000_000, 2), np.float32)  # several blocks
    z[[1_999_990, 1_999_995], 1] = value
    with pytest.raises(InputError, match=r"in 2 of 2000000 rows, first in row 1999990;"):
        validate_latents(z)
    with pytest.raises(InputError, match=r"row 1 \(key b\.png\)"):
        validate_latents([[0.0], [value]], keys=["a.png", "b.png"])


def test_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(InputError, match="row 1"):
        validate_latents(np.array([[1.0], [1e39]]))


@pytest.mark.parametrize("z", [np.ones(3), np.ones((0, 2)), np.ones((2, 0)), np.ones((2, 2), complex), [["a"]]])
def test_wrong_shapes_and_kinds(z: np.ndarray) -> None:
    with pytest.raises(InputError, match="found"):
        validate_latents(z)


def test_interpolate() -> None:
    z = rng.standard_normal((20, 7)).astype(np.float32)
    i, j, alpha = np.array([0, 3, 19]), np.array([1, 5, 2]), np.array([0.1, 0.5, 0.9])
    got = interpolate(z, i, j, alpha)
    assert got.dtype == np.float32
    want = [
        (1 - a) * z[p].astype(np.float64) + a * z[q].astype(np.float64) for p, q, a in zip(i, j, alpha, strict=True)
    ]
    np.testing.assert_array_equal(got, np.float32(want))
    np.testing.assert_array_equal(interpolate(z, 4, 8, [0.0, 1.0]), z[[4, 8]])
    assert interpolate(z, np.empty(0, int), np.empty(0, int), np.empty(0)).shape == (0, 7)
    with pytest.raises(InputError, match="broadcast"):
        interpolate(z, [0, 1], [1, 2, 3], 0.5)
    with pytest.raises(InputError, match=r"j\[1\] = 20 is no row of 20"):
        interpolate(z, [0, 1], [1, 20], 0.5)
