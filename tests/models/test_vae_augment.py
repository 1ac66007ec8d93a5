"""DiffAugment against plain NumPy, its gradients, and ADA's steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ldsaug_ray.models.stylegan2.augment import augment, next_probability

KINDS = ("color", "translation", "cutout")


def _images(n: int, side: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(5), dtype=dtype) * 2 - 1


def _run(x: Tensor, kinds: tuple[str, ...], p: float | Tensor = 1.0, seed: int = 0) -> Tensor:
    return augment(x, kinds, p, torch.Generator().manual_seed(seed))


def test_nothing_happens_with_probability_zero_or_no_kinds() -> None:
    x = _images(8)
    assert torch.equal(_run(x, KINDS, 0.0), x)
    assert torch.equal(_run(x, KINDS, torch.tensor(0.0)), x)
    assert torch.equal(_run(x, ()), x)


def test_randomness_is_the_generators() -> None:
    x = _images(8)
    assert torch.equal(_run(x, KINDS), _run(x, KINDS))
    assert not torch.equal(_run(x, KINDS), _run(x, KINDS, seed=1))


def test_translation_shifts_by_up_to_an_eighth_and_fills_with_grey() -> None:
    x = _images(400)
    seen = set()
    for before, after in zip(x.numpy(), _run(x, ("translation",)).numpy(), strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)))
        matches = [
            (i - 2, j - 2)
            for i in range(5)
            for j in range(5)
            if np.array_equal(padded[:, i : i + 16, j : j + 16], after)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_cutout_blanks_a_square_of_half_the_side_clipped_at_the_edges() -> None:
    x = torch.ones(600, 3, 16, 16)
    sizes, tops = set(), set()
    for image in _run(x, ("cutout",)).numpy():
        assert (image == image[0]).all()
        rows, columns = np.nonzero(image[0] == 0)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        assert (image[0, top:bottom, left:right] == 0).all()
        assert image[0].sum() == 256 - (bottom - top) * (right - left)
        assert 4 <= bottom - top <= 8
        assert bottom - top == 8 or top == 0 or bottom == 16
        sizes.add(bottom - top)
        tops.add(top)
    assert sizes == {4, 5, 6, 7, 8}
    assert {0, 8, 12} <= tops


def test_color_is_brightness_saturation_and_contrast() -> None:
    """Undone by least squares: the image is a·x + b·grey(x) + c with the ranges of the three factors."""
    x = _images(200, dtype=torch.float64)
    saturations, contrasts, shifts = [], [], []
    for before, after in zip(x.numpy(), _run(x, ("color",)).numpy(), strict=True):
        grey = np.broadcast_to(before.mean(0), before.shape)
        design = np.stack([before.ravel(), grey.ravel(), np.ones(before.size)], 1)
        (a, b, _), residual, *_ = np.linalg.lstsq(design, after.ravel(), rcond=None)
        assert residual[0] < 1e-6  # the draws are float32
        contrast = a + b
        contrasts.append(contrast)
        saturations.append(a / contrast)
        shifts.append(after.mean() - before.mean())
    for values, low, high in ((shifts, -0.5, 0.5), (saturations, 0, 2), (contrasts, 0.5, 1.5)):
        assert low - 1e-5 <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high + 1e-5


def test_each_kind_is_drawn_for_each_image() -> None:
    x = _images(2000, 16)
    changed = {
        kind: (_run(x, (kind,), torch.tensor(0.3)) != x).any(3).any(2).any(1).float().mean().item() for kind in KINDS
    }
    # a shift by nothing, one in 25, changes nothing
    expected = {"color": 0.3, "translation": 0.3 * 24 / 25, "cutout": 0.3}
    assert changed == pytest.approx(expected, abs=0.04)
    both = (_run(x, ("cutout", "color"), 0.3) != x).any(3).any(2).any(1).float().mean().item()
    assert both == pytest.approx(1 - 0.7**2, abs=0.04)


def test_gradients_pass_once_and_twice() -> None:
    x = _images(2, 8, torch.float64).requires_grad_()

    def squares(t: Tensor) -> Tensor:
        return _run(t, KINDS).square()

    assert torch.autograd.gradcheck(squares, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(squares, (x,), fast_mode=True)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'zoom'"):
        _run(_images(1), ("zoom",))


def test_ada_moves_by_the_share_of_images_seen_and_stays_within_bounds() -> None:
    half = torch.tensor(0.5)
    assert next_probability(half, torch.tensor(0.7), 0.6, 64, 6400).item() == pytest.approx(0.51)
    assert next_probability(half, torch.tensor(0.5), 0.6, 64, 6400).item() == pytest.approx(0.49)
    assert next_probability(torch.tensor(0.005), torch.tensor(-1.0), 0.6, 64, 6400).item() == 0
    assert next_probability(torch.tensor(0.995), torch.tensor(1.0), 0.6, 64, 6400).item() == 1
