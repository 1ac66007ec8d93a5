"""Figures, sheets and the formatting of numbers."""

from __future__ import annotations

import io
import math
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ldsaug_ray.lds import HeldOut
from ldsaug_ray.report import figures
from ldsaug_ray.report.data import AttributeShare, Curve
from ldsaug_ray.report.numbers import duration, percent, power, value
from ldsaug_ray.report.sheets import GAP, pairs, sheet, tile_side, tiles


@pytest.mark.parametrize(
    ("log_value", "text"),
    [
        (math.log(0.28), "0.280"),
        (math.log(0.0123), "0.0123"),
        (math.log(3.214e-5), "3.21 × 10⁻⁵"),
        (math.log(9.999e-5), "1.00 × 10⁻⁴"),
        (math.log(93.5), "93.5"),
        (math.log(1234), "1,234"),
        (math.log(5e6), "5.00 × 10⁶"),
        (0.0, "1.00"),
        (-10_000 * math.log(10), "1.00 × 10⁻¹⁰⁰⁰⁰"),
        (-math.inf, "0"),
    ],
)
def test_power(log_value: float, text: str) -> None:
    assert power(log_value) == text


def test_shares_are_never_rounded_to_nothing_or_all() -> None:
    assert [percent(x) for x in (0, 1e-6, 0.2, 0.1234, 0.99999, 1)] == ["0%", "<0.1%", "20%", "12.3%", ">99.9%", "100%"]
    assert percent(None) == "–"


def test_duration() -> None:
    assert [duration(s) for s in (0.04, 59.94, 65, 7380)] == ["0.0 s", "59.9 s", "1 min 05 s", "2 h 03 min"]


@pytest.mark.parametrize("values", [np.zeros(7), np.full(5, -1e5), np.linspace(-30, -1, 1000), np.array([-3.0])])
def test_histogram_loses_nothing(values: np.ndarray) -> None:
    selected = np.arange(len(values)) % 2 == 0
    found = figures.histogram(values, selected)
    assert found.all.sum() == len(values)
    assert found.kept.sum() == selected.sum()
    assert (found.kept <= found.all).all()


def test_log_histogram_has_edges_in_the_values_own_unit() -> None:
    found = figures.histogram(np.array([1.0, 10.0, 1000.0]), np.ones(3, bool), 3, log=True)
    np.testing.assert_allclose(found.edges, [1, 10, 100, 1000])
    assert found.all.tolist() == [1, 1, 1]


@pytest.mark.parametrize("case", ["usual", "constant", "one"])
def test_figures_are_reproducible_svg_within_their_bounds(case: str) -> None:
    rng = np.random.default_rng(0)
    n = 1 if case == "one" else 500
    alpha = rng.choice([0.1, 0.5, 0.9], n) if case == "usual" else np.full(n, 0.5)
    score = rng.normal(-2000, 300, n) if case == "usual" else np.full(n, -3.0)
    kept = score >= np.quantile(score, 0.8)
    values = np.unique(alpha)

    def drawn() -> list[bytes]:
        even = [1 / len(values)] * len(values)
        ones = figures.histogram(np.exp(rng.normal(size=n) * 0 + 1), kept, 40, log=True)
        curve = Curve("train", ({"step": 1, "loss": 3.0}, {"step": 50, "loss": 0.01}))
        return [
            figures.density(figures.histogram(score, kept), float(score.max()), "log LDS"),
            figures.density(
                figures.histogram(score, kept), -3.0, "log LDS", HeldOut(9, score.min() - 1, -3, score.max())
            ),
            figures.density(figures.histogram(score, kept), -3.0, "log LDS", HeldOut(9, -1e9, -1e8, -1e7)),
            figures.by_alpha(alpha, score, float(score.max()), "log LDS"),
            figures.alpha_share(values.tolist(), even, None),
            figures.shares(ones, "neighbours", log=True),
            figures.density(figures.histogram(score, kept & False), None, "log LDS"),
            figures.by_alpha(alpha, score, None, "log LDS"),
            figures.curve([curve, Curve("finetune", ({"step": 1, "loss": 0.02},))], "loss"),
            figures.curve([curve, Curve("finetune", ({"step": 1, "r1": 0.02}, {"step": 9, "loss": 0.1}))], "r1"),
            figures.attributes([AttributeShare("$x^{ <b>&", 0.2, 0.4), AttributeShare("a" * 80, 0.5, 0.1)]),
        ]

    first = drawn()
    assert drawn() == first
    for svg in first:
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert b"prefers-color-scheme: dark" in svg
    assert "matplotlib.pyplot" not in sys.modules


def test_every_ink_has_a_dark_one() -> None:
    svg = figures.alpha_share([0.1, 0.5], [0.5, 0.5], [0.2, 0.8]).decode()
    for ink in (figures.INK, figures.MUTED, figures.GRID, figures.ALL, figures.KEPT):
        assert f'[style*="fill: {ink}"]' in svg
    body = svg.partition("</style>")[2].lower()
    used = {part[:7] for part in body.replace("#glyph", "").split(": #")[1:] for part in ["#" + part[:6]]}
    assert used <= {figures.INK, figures.MUTED, figures.GRID, figures.ALL, figures.KEPT, figures.MARK}


@pytest.mark.parametrize(("side", "shown"), [(16, 64), (32, 64), (64, 64), (128, 128), (256, 128)])
def test_tiles(side: int, shown: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    found = tiles(images)
    assert found.shape == (3, shown, shown, 3)
    assert tile_side(side) == shown
    if shown >= side:
        np.testing.assert_array_equal(found[:, :: shown // side, :: shown // side], images)
    assert tiles(images[:0]).shape == (0, shown, shown, 3)


def test_sheet_keeps_every_pixel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    found = np.asarray(Image.open(io.BytesIO(sheet(images, 2))))
    assert found.shape == (3 * (64 + GAP) - GAP, 2 * (64 + GAP) - GAP, 4)
    for k, image in enumerate(images):
        y, x = (k // 2) * (64 + GAP), (k % 2) * (64 + GAP)
        np.testing.assert_array_equal(found[y : y + 64, x : x + 64, :3], image)
    assert (found[..., 3] == 255).sum() == 5 * 64 * 64  # the rest is see-through
    with pytest.raises(ValueError, match="at least one"):
        sheet(images[:0])


def test_pairs_alternate_in_rows():
    above = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 2, 2, 3))
    below = above + np.uint8(100)
    assert pairs(above, below)[:, 0, 0, 0].tolist() == [*range(8), *range(100, 108), 8, 9, 108, 109]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((None,), "–"),
        ((0.0, 0.0), "0 ± 0"),
        ((796.4,), "796"),
        ((0.7901, 0.0241), "0.790 ± 0.024"),
        ((-0.00315, 0.0174), "−0.0032 ± 0.0174"),
        ((3512.2, 86.4), "3,512 ± 86"),
        ((1.0, 0.0), "1.00 ± 0.00"),
        ((314.27, 0.4), "314.3 ± 0.4"),
        ((-0.0,), "0"),
        ((-0.0001, 4.0), "0.00 ± 4.00"),
    ],
)
def test_measures_as_people_read_them(given, text):
    assert value(*given) == text
