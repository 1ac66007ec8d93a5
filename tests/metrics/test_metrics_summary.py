"""All measures of a set at once: the same numbers as the functions one by one; null where too few images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldsaug_ray.errors import InputError
from ldsaug_ray.metrics import (
    MEASURES,
    fit_probe,
    frechet_distance,
    kernel_distance,
    measure_copies,
    measure_copying,
    measure_probe,
    measure_set,
    measure_share,
    prdc,
)


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, 4)) + shift).astype(np.float32)


def test_the_numbers_are_those_of_the_single_measures():
    real, made, sharp = features(300, 0), features(250, 1, 0.3), np.arange(250.0)
    numbers, notes = measure_set(made, sharp, real, 5, seed=3)
    manifold, kernel = prdc(real, made, 5), kernel_distance(made, real, seed=3)
    assert numbers["n"] == 250
    assert numbers["frechet"]["value"] == pytest.approx(frechet_distance(made, real), rel=1e-12)
    assert numbers["kernel_distance"] == {"value": kernel.distance, "standard_error": kernel.standard_error}
    for name in ("precision", "recall", "density", "coverage"):
        assert numbers[name] == {"value": getattr(manifold, name), "standard_error": manifold.errors[name]}
    assert numbers["sharpness"] == {"value": 124.5, "standard_error": sharp.std(ddof=1) / 250**0.5}
    assert any("below 1,000" in note for note in notes)
    assert json.loads(json.dumps(numbers)) == numbers


def test_copying_takes_fewer_cells_from_fewer_images():
    train, made, held_out = features(300, 0), features(160, 1), features(170, 2)
    numbers, _, nearest = measure_copying(train, made, held_out)
    copies = measure_copies(train, made, held_out, cells=3)
    assert numbers["c_t"] == {"value": copies.c_t.value, "cells": 3}
    assert numbers["authenticity"] == {"value": copies.authenticity, "held_out": copies.authenticity_held_out}
    assert numbers["nearer"] == {"value": copies.nearer}
    assert nearest is not None
    np.testing.assert_array_equal(nearest.rows, copies.generated.rows)
    copied, _, _ = measure_copying(train, train[:160] + np.float32(1e-3), held_out)
    assert copied["authenticity"]["value"] < 1 < 20 < copied["authenticity"]["held_out"]
    assert copied["nearer"]["value"] > 0.99
    assert copied["c_t"]["value"] < -5


def test_what_so_few_images_do_not_allow_is_null_and_said():
    numbers, notes, nearest = measure_copying(features(30, 0), features(10, 1), features(30, 2))
    assert {name: numbers[name]["value"] for name in numbers} == dict.fromkeys(("authenticity", "nearer", "c_t"))
    assert nearest is None
    assert [note for note in notes if note.startswith("copies: ")]
    numbers, notes = measure_set(features(3, 1), np.ones(3), features(30, 0), 2)
    assert numbers["kernel_distance"] == {"value": None}
    assert any(note.startswith("kernel distance: ") for note in notes)
    with pytest.raises(InputError, match="5"):
        measure_set(features(5, 1), np.ones(5), features(30, 0), 5)
    assert set(numbers) - {"n"} < set(MEASURES)


def test_a_share_or_why_there_is_none():
    x, labels = features(200, 0), features(200, 0)[:, 0] > 0
    quality = measure_probe(fit_probe(x, labels, "Male"), x, labels)
    found = np.arange(100) < 30
    share, notes = measure_share(found, quality)
    assert share["low"] < share["value"] < share["high"]
    assert share["value"] == pytest.approx(0.3, abs=0.05)
    assert notes == []
    useless = measure_probe(fit_probe(x, labels, "Male"), x, ~labels)
    share, notes = measure_share(found, useless)
    assert share == {"value": None}
    assert "no better than chance" in notes[0]
