from __future__ import annotations

import numpy as np
import pytest

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import KINDS, corrupt


def pictures(n: int = 6, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_depends_on_seed_and_number_alone(kind: str) -> None:
    x = pictures()
    all_at_once = corrupt(x, kind, seed=3)
    assert all_at_once.dtype == np.uint8
    assert all_at_once.shape == x.shape
    order = np.array([4, 1, 5])
    np.testing.assert_array_equal(corrupt(x[order], kind, seed=3, numbers=order), all_at_once[order])
    assert (all_at_once != x).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(x, pictures())  # the input is left alone
    if kind != "blur":
        assert (corrupt(x, kind, seed=4) != all_at_once).any()
        twins = corrupt(np.stack([x[0], x[0]]), kind, seed=3)
        assert (twins[0] != twins[1]).any()
    assert corrupt(x[:0], kind).shape == (0, 24, 24, 3)


def test_blur_is_a_gaussian() -> None:
    """A single bright pixel becomes the product of two sampled Gaussians; flat areas stay."""
    x = np.zeros((1, 41, 41, 3), np.uint8)
    x[0, 20, 20] = 255
    got = corrupt(x, "blur", strength=1.5 / 41)[0, :, :, 0]
    line = np.exp(-((np.arange(41) - 20) ** 2) / (2 * 1.5**2))
    want = 255 * np.outer(line, line) / line.sum() ** 2
    np.testing.assert_allclose(got, want, atol=0.6)
    flat = np.full((1, 16, 16, 3), 77, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, "blur", strength=0.3), flat)


def test_noise_has_its_deviation() -> None:
    grey = np.full((4, 64, 64, 3), 128, np.uint8)
    gaps = corrupt(grey, "noise", strength=0.1).astype(float) - 128
    assert gaps.std() == pytest.approx(25.5, rel=0.02)
    assert abs(gaps.mean()) < 0.5


def test_occlusion_is_one_grey_rectangle() -> None:
    x = pictures(20)
    x[x == 128] = 127
    got = corrupt(x, "occlusion", strength=0.5)
    places = set()
    for image, damaged in zip(x, got, strict=True):
        rows, columns = np.nonzero((damaged == 128).all(2))
        assert (np.ptp(rows), np.ptp(columns), len(rows)) == (11, 11, 144)
        outside = ~(damaged == 128)
        np.testing.assert_array_equal(image[outside], damaged[outside])
        places.add((rows.min(), columns.min()))
    assert len(places) > 10


def test_patches_are_the_same_in_another_order() -> None:
    x = pictures(8, 26)
    got = corrupt(x, "shuffled patches", strength=4)
    np.testing.assert_array_equal(got[:, 24:], x[:, 24:])  # 26 is no multiple of 4: a rim stays

    def patches(image: np.ndarray) -> list[bytes]:
        return [image[r : r + 6, c : c + 6].tobytes() for r in range(0, 24, 6) for c in range(0, 24, 6)]

    for before, after in zip(x, got, strict=True):
        assert patches(before) != patches(after)
        assert sorted(patches(before)) == sorted(patches(after))


def test_bad_input() -> None:
    x = pictures()
    with pytest.raises(ConfigError, match="unknown corruption 'smear'; possible: blur, noise"):
        corrupt(x, "smear")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="strength of noise must be above 0 and at most 1; found 2"):
        corrupt(x, "noise", strength=2)
    with pytest.raises(ConfigError, match=r"whole number from 2 to 24; found 2\.5"):
        corrupt(x, "shuffled patches", strength=2.5)
    with pytest.raises(ConfigError, match="each of 6 images"):
        corrupt(x, "noise", numbers=[1, 2])
    with pytest.raises(InputError, match="found float64"):
        corrupt(x / 255, "blur")  # type: ignore[arg-type]
