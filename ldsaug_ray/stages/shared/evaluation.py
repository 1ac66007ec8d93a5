"""What stage `evaluate` makes of features: readings of every set, attribute shares, galleries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.config import Config
from ldsaug_ray.domains import Domain, domain_of
from ldsaug_ray.metrics import (
    OF_SETS,
    Attribute,
    Evaluated,
    Extractor,
    Measure,
    Nearest,
    Reading,
    Sample,
    SetReadings,
    UsedExtractor,
    describe_probe,
    fit_probe,
    measure_probe,
    measure_set,
    measure_share,
    nearest_training,
    own_measures,
)
from ldsaug_ray.metrics.classes import class_attribute
from ldsaug_ray.metrics.copies import copies_of
from ldsaug_ray.stages.shared.features import ImageSet, SetFeatures

SHOWN = 16  # images of each gallery


def evaluated(
    config: Config,
    extractor: Extractor,
    features: Mapping[str, SetFeatures],
    labels: Mapping[str, Mapping[str, Any]],
    items: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[Evaluated, dict[str, Nearest]]:
    """What goes to `metrics.json`, and nearest training images of each set.

    items: of each set, where a measure of the domain looks at them.
    """
    own = own_measures(config.evaluate.measures)
    sets, nearest = _measured(config, features, (*OF_SETS, *own), items or {})
    attributes = {name: _balance(name, features, of) for name, of in labels.items()}
    for name, readings in sets.items():
        more = [note for attribute in attributes.values() for note in attribute.shares[name].notes]
        sets[name] = replace(readings, notes=(*readings.notes, *more))
    settings, (n_test, dimension) = config.evaluate, features["test"].features.shape
    found = Evaluated(
        UsedExtractor(str(settings.extractor), dimension, extractor.fingerprint, settings.resize),
        n_test,
        settings.k,
        sets,
        getattr(config.data, "resolution", 0),
        config.sample.prior,
        attributes,
        own=own,
    )
    return found, nearest


def _measured(
    config: Config,
    features: Mapping[str, SetFeatures],
    measures: Sequence[Measure],
    items: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, SetReadings], dict[str, Nearest]]:
    """Readings and nearest training images of each set. Of the training images evaluate.n are drawn at random, so that
    their distances can be set beside those of as many drawn images."""
    sets: dict[str, SetReadings] = {}
    nearest: dict[str, Nearest] = {}
    test, train = features["test"].features, features["train"].features
    domain = domain_of(config)
    sides = {"reference": items["test"], "train": items["train"]} if items else {}
    for name, found in features.items():
        if name == "test":
            continue
        rows = np.arange(len(found.features))
        if name == "train" and len(rows) > config.evaluate.n:
            drawn = np.random.default_rng([config.seed, 2]).choice(len(rows), config.evaluate.n, replace=False)
            rows = np.sort(drawn)
        if name == "augmented" and len(rows) <= config.evaluate.k:  # after hours of training no error
            few = f"{len(rows)} {domain.unit} of A: too few for evaluate.k = {config.evaluate.k} neighbours"
            sets[name] = SetReadings(len(rows), notes=(few,))
            continue
        quality = {name: values[rows] for name, values in found.quality.items()}
        usable = rows[domain.usable(quality)]
        sample = Sample(
            found.features[usable],
            test,
            train if name != "train" else train[:0],
            quality,
            config.evaluate.k,
            config.seed,
            {domain.name: {"features": items[name][rows], **sides}} if items else {},
        )
        if not len(usable):  # the domain's own measures look at the items, and may count that
            of_items = measure_set(sample, [m for m in measures if domain.name in m.needs])
            none = f"none of {len(rows)} {domain.unit} can be measured"
            sets[name] = SetReadings(len(rows), of_items.readings, (none,))
            continue
        sets[name] = measure_set(sample, measures)
        if name != "train":
            copies, _ = sample.once(copies_of)
            whole = copies is not None and len(usable) == len(found.features)
            nearest[name] = copies.generated if copies and whole else nearest_training(train, found.features)
    real = features["test"]
    there = {domain.name: {"features": items["test"]}} if items else {}
    alone = measure_set(Sample(test, quality=real.quality, items=there), measures)
    # of the reference the value is what counts
    readings = {measure: replace(reading, standard_error=None) for measure, reading in alone.readings.items()}
    sets["test"] = replace(alone, readings=readings)
    return sets, nearest


def _balance(name: str, features: Mapping[str, SetFeatures], labels: Mapping[str, np.ndarray]) -> Attribute:
    """The share of an attribute in each set, from a probe fitted on training images and judged on test images."""
    if any((of > 1).any() for of in labels.values()):
        return class_attribute(name, {found: of.features for found, of in features.items()}, labels)
    known = {split: of != 0 for split, of in labels.items()}
    train, test = (features[split].features[known[split]] for split in ("train", "test"))
    probe = fit_probe(train, labels["train"][known["train"]] > 0, name)
    quality = measure_probe(probe, test, labels["test"][known["test"]] > 0)
    shares: dict[str, Reading] = {}
    for split, of in labels.items():
        counted = {"n": int(known[split].sum()), "labelled": True}
        shares[split] = Reading(float((of[known[split]] > 0).mean()), more=counted)
    for set_name, found in features.items():
        if set_name not in labels:
            shares[set_name] = measure_share(probe.predict(found.features), quality)
    return Attribute(describe_probe(probe, quality), shares)


def gallery(
    images: ImageSet,
    real: Mapping[str, ImageSet],
    features: Mapping[str, SetFeatures],
    nearest: Nearest,
    domain: Domain,
    facts: Mapping[str, Any],
) -> pa.Table:
    """The images nearest to and farthest from a real test image, and those nearest to a training image, with it."""
    to_test = nearest_training(features["test"].features, features[images.name].features)
    order = np.argsort(to_test.distances, kind="stable")
    count = min(SHOWN, len(order))
    kinds: list[tuple[str, Sequence[int], Nearest, str]] = [
        ("best", order[:count].tolist(), to_test, "test"),
        ("worst", order[::-1][:count].tolist(), to_test, "test"),
        ("copy", nearest.closest(count).tolist(), nearest, "train"),
    ]
    tables = []
    for kind, rows, near, split in kinds:
        keys, shown = images.items(rows, domain)
        real_keys, beside = real[split].items(near.rows[rows].tolist(), domain)
        tables.append(
            pa.table(
                {
                    "kind": [kind] * len(rows),
                    "key": keys,
                    domain.column: domain.export(shown, keys, facts),
                    "nearest": real_keys,
                    "nearest_split": [split] * len(rows),
                    f"nearest_{domain.column}": domain.export(beside, real_keys, facts),
                    "distance": near.distances[rows],
                }
            )
        )
    return pa.concat_tables(tables)
