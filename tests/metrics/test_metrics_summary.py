"""All measures of a set at once: the same numbers as the functions one by one; null where too few images; one's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import (
    OF_SETS,
    Attribute,
    Auroc,
    Detection,
    Evaluated,
    Measure,
    Reading,
    Sample,
    SetReadings,
    UsedExtractor,
    fit_probe,
    frechet_distance,
    kernel_distance,
    manifold,
    measure_copies,
    measure_probe,
    measure_set,
    measure_share,
    own_measures,
    prdc,
)
from ldsaug_ray.metrics.copies import copies_of


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, 4)) + shift).astype(np.float32)


def spread(sample: Sample) -> Reading:
    return Reading(float(sample.features.std()))


SPREAD = Measure(name="spread", title="spread", better="more", take=spread)


def test_the_numbers_are_those_of_the_single_measures(monkeypatch):
    real, made, sharp = features(300, 0), features(250, 1, 0.3), np.arange(250.0)
    calls = []
    monkeypatch.setattr(manifold, "prdc", lambda *args: calls.append(1) or prdc(*args))
    found = measure_set(Sample(made, real, quality={"sharpness": sharp}, k=5, seed=3))
    assert len(calls) == 1  # four measures share it
    told = {name: reading.to_json() for name, reading in found.readings.items()}
    apart, kernel = prdc(real, made, 5), kernel_distance(made, real, seed=3)
    assert found.n == 250
    assert told["frechet"] == {"value": pytest.approx(frechet_distance(made, real), rel=1e-12)}
    assert told["kernel_distance"] == {"value": kernel.distance, "standard_error": kernel.standard_error}
    for name in ("precision", "recall", "density", "coverage"):
        assert told[name] == {"value": getattr(apart, name), "standard_error": apart.errors[name]}
    assert told["sharpness"] == {"value": 124.5, "standard_error": sharp.std(ddof=1) / 250**0.5}
    assert len(found.notes) == len(set(found.notes))
    assert any("below 1,000" in note for note in found.notes)
    # no training images: nothing on copies
    assert list(told) == [m.name for m in OF_SETS if {"reference", "sharpness"}.issuperset(m.needs)]
    assert {"authenticity", "nearer", "c_t"}.isdisjoint(told)


def test_copying_takes_fewer_cells_from_fewer_images():
    train, made, held_out = features(300, 0), features(160, 1), features(170, 2)
    sample = Sample(made, held_out, train)
    readings = measure_set(sample).readings
    copies = measure_copies(train, made, held_out, cells=3)
    assert readings["c_t"].to_json() == {"value": copies.c_t.value, "cells": 3}
    of_held_out = {"value": copies.authenticity, "held_out": copies.authenticity_held_out}
    assert readings["authenticity"].to_json() == of_held_out
    assert readings["nearer"].to_json() == {"value": copies.nearer}
    generated = sample.once(copies_of)[0].generated
    np.testing.assert_array_equal(generated.rows, copies.generated.rows)
    copied = measure_set(replace(sample, features=train[:160] + np.float32(1e-3))).readings
    assert copied["authenticity"].value < 1 < 20 < copied["authenticity"].more["held_out"]
    assert copied["nearer"].value > 0.99
    assert copied["c_t"].value < -5


def test_what_so_few_images_do_not_allow_is_null_and_said():
    found = measure_set(Sample(features(10, 1), features(30, 2), features(30, 0)))
    assert [found.value(name) for name in ("authenticity", "nearer", "c_t")] == [None] * 3
    assert len([note for note in found.notes if note.startswith("copies: ")]) == 1
    found = measure_set(Sample(features(3, 1), features(30, 0), k=2))
    assert found.readings["kernel_distance"].to_json() == {"value": None}
    assert any(note.startswith("kernel distance: ") for note in found.notes)
    with pytest.raises(InputError, match="5 images; k = 5 neighbours"):
        measure_set(Sample(features(5, 1), features(30, 0)))


def test_a_share_or_why_there_is_none():
    x, labels = features(200, 0), features(200, 0)[:, 0] > 0
    quality = measure_probe(fit_probe(x, labels, "Male"), x, labels)
    found = np.arange(100) < 30
    share = measure_share(found, quality)
    assert share.interval[0] < share.value < share.interval[1]
    assert share.value == pytest.approx(0.3, abs=0.05)
    assert share.notes == ()
    useless = measure_probe(fit_probe(x, labels, "Male"), x, ~labels)
    share = measure_share(found, useless)
    assert (share.to_json(), share.interval) == ({"value": None}, None)
    assert "no better than chance" in share.notes[0]


def test_metrics_json_is_what_it_was():
    """The layout that readers of the file know, written out by hand; and read back."""
    probe = {"penalty": 1.0, "balanced_accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}
    found = Evaluated(
        UsedExtractor("net.pt", 8, "abc", None),
        50,
        5,
        {
            "train": SetReadings(20, {"frechet": Reading(1.5), "recall": Reading(0.5, 0.1)}, ("few",)),
            "finetuned": SetReadings(10, {"authenticity": Reading(40.0, more={"held_out": 50.0})}),
            "test": SetReadings(50, {"sharpness": Reading(3.0)}),
        },
        32,
        "kde",
        {"Male": Attribute(probe, {"test": Reading(0.25, more={"n": 4, "labelled": True})})},
        (Detection("blur", 0.2, True, 1.5, Auroc(0.75, 0.1, 50, 50)),),
    )
    told = found.to_json()
    assert told == {
        "extractor": {"name": "net.pt", "fingerprint": "abc", "dimension": 8, "resize": None},
        "reference": {"set": "test", "n": 50},
        "resolution": 32,
        "k": 5,
        "prior": "kde",
        "sets": {
            "train": {"n": 20, "frechet": {"value": 1.5}, "recall": {"value": 0.5, "standard_error": 0.1}},
            "finetuned": {"n": 10, "authenticity": {"value": 40.0, "held_out": 50.0}},
            "test": {"n": 50, "sharpness": {"value": 3.0}},
        },
        "attributes": {"Male": {"probe": probe, "shares": {"test": {"value": 0.25, "n": 4, "labelled": True}}}},
        "notes": {"train": ["few"], "finetuned": []},
        "detection": [
            {
                "group": "blur",
                "scale": 0.2,
                "centred": True,
                "sigma": 1.5,
                "auroc": {"value": 0.75, "standard_error": 0.1, "n_real": 50, "n_other": 50},
            }
        ],
    }
    assert Evaluated.from_json(json.loads(json.dumps(told))) == found
    of_the_manifest = Evaluated.from_json({name: told[name] for name in ("extractor", "k", "sets", "detection")})
    assert of_the_manifest.n_test == 50
    own = Evaluated.from_json(json.loads(json.dumps(replace(found, own=(SPREAD,)).to_json()))).own
    assert [(m.name, m.title, m.better, m.arrow) for m in own] == [("spread", "spread", "more", "↑")]


def test_ones_own_measure_is_taken_of_every_set_that_has_what_it_needs():
    nan = Measure(name="nan", title="never", better=None, take=lambda _: Reading(float("nan")))
    few = Measure(
        name="few", title="few", better=None, take=lambda s: Reading(kernel_distance(s.features, []).distance)
    )
    found = measure_set(Sample(features(30, 0)), (*OF_SETS, SPREAD, nan, few))
    assert list(found.readings)[-3:] == ["spread", "nan", "few"]
    assert "frechet" not in found.readings  # there is no reference
    assert found.value("spread") == pytest.approx(np.std(features(30, 0)))
    assert [found.value(name) for name in ("nan", "few")] == [None, None]
    assert found.notes[0] == "never: the value is nan"
    assert found.notes[1].startswith("few: features_b")
    broken = Measure(name="broken", title="b", better=None, take=lambda _: Reading(1 / 0))
    with pytest.raises(InputError, match=r"measure broken failed \(ZeroDivisionError"):
        measure_set(Sample(features(30, 0)), [broken])
    number = Measure(name="number", title="b", better=None, take=lambda _: 3.0)
    with pytest.raises(InputError, match="measure number gave float; a Reading is needed"):
        measure_set(Sample(features(30, 0)), [number])


def test_what_is_wrong_with_a_path_is_said(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from ldsaug_ray.metrics import Measure, Reading\n"
    for name, value in {"GOOD": "spread", "TAKEN": "recall", "BAD": "a b"}.items():
        text += f"def make_{name}():\n    return Measure(name={value!r}, title='t', better=None, take=Reading)\n"
    (tmp_path / "of_measures.py").write_text(text + "GOOD, TAKEN = make_GOOD(), make_TAKEN()\nNUMBER = 3\n")
    (tmp_path / "of_bad_names.py").write_text(text + "BAD = make_BAD()\n")
    assert [m.name for m in own_measures(["of_measures:GOOD"])] == ["spread"]
    for path, why in {
        "of_measures:NONE": "has no 'NONE'",
        "nowhere.mine:Vendi": "there is no module 'nowhere'",
        "of_measures:NUMBER": "int",
        "of_measures:TAKEN": "is called recall, as another measure is",
        "of_bad_names:BAD": "must be letters, digits and _, and not n; found 'a b'",
        "recall": "recall is built in",
        "no_such": "possible: a_attribute_gap, ",
        "ldsaug_ray.metrics.a_nearer:A_NEARER": "is a MeasureOfA; a Measure is needed",
    }.items():
        with pytest.raises(ConfigError, match=r"evaluate\.measures: ") as e:
            own_measures([path])
        assert why in str(e.value)
    with pytest.raises(ConfigError, match="is called spread, as another"):
        own_measures(["of_measures:GOOD", "of_measures:GOOD"])
