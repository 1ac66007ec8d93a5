"""Stage `evaluate`: images drawn from the models against held-out real ones, to `evaluate/metrics.json`.

Each set (`train` and `test` images, A, what each model draws) becomes features once, kept below `features/`; drawn
images are kept below `drawn/`. The test images are the reference of every measure; the training images are measured
like a generated set too, since what real images reach is what a model can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.config import Config
from ldsaug_ray.domains.images import require_attribute
from ldsaug_ray.domains.images.stamp import source_stamp
from ldsaug_ray.domains.images.stored import image_column
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.metrics import (
    OF_SETS,
    Attribute,
    Detection,
    Evaluated,
    Extractor,
    Measure,
    Nearest,
    Reading,
    Sample,
    SetReadings,
    UsedExtractor,
    describe_probe,
    detect,
    fit_probe,
    measure_probe,
    measure_set,
    measure_share,
    nearest_training,
    own_measures,
)
from ldsaug_ray.metrics.copies import copies_of
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.stages import prepare
from ldsaug_ray.stages.damaged import AS_IS, latents_of
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.stages.features import ImageSet, SetFeatures, features_of, opened
from ldsaug_ray.stages.job import Job
from ldsaug_ray.stages.outcome import Outcome
from ldsaug_ray.stages.runner import ensure
from ldsaug_ray.stages.sample import Request, draw_samples

SHOWN = 16  # images of each gallery


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Draw, extract, measure.

    Raises:
        ConfigError: no extractor is set, or it is unknown, or needs a package that is not installed.
        InputError: its weights are missing or damaged, it cannot take these images, or an attribute has no labels of
            both kinds.
        ImpossibleError: there are too few images to measure.
    """
    config = job.config
    extractor = opened(config)
    real = {split: real_images(job, split) for split in ("test", "train")}
    if len(real["test"]) <= config.evaluate.k:
        raise ImpossibleError(
            f"evaluate.k = {config.evaluate.k} neighbours need more than the {len(real['test'])} test images; raise "
            "data.test or lower evaluate.k"
        )
    sets = [real["train"], *_made(job)]
    features = features_of(job, [real["test"], *sets], extractor.fingerprint)
    labels = {name: {s.name: label_array(s, name) for s in real.values()} for name in config.evaluate.attributes}
    found, nearest = evaluated(config, extractor, features, labels)
    told = replace(found, detection=_detection(job, real["test"])).to_json()
    folder = job.run.folder("evaluate")
    for images in sets:
        if images.name in nearest:
            table = _gallery(images, real, features, nearest[images.name])
            (folder / f"gallery-{images.name}.parquet").write_table(table)
    (folder / "metrics.json").write_json(told)
    n = sum(len(f.features) for f in features.values())
    return Outcome(
        Counts(n, n),
        fingerprint(told),
        {name: told[name] for name in ("extractor", "k", "sets", "detection", "measures") if name in told},
    )


def evaluated(
    config: Config, extractor: Extractor, features: Mapping[str, SetFeatures], labels: Mapping[str, Mapping[str, Any]]
) -> tuple[Evaluated, dict[str, Nearest]]:
    """What goes to `metrics.json`, and nearest training images of each set."""
    own = own_measures(config.evaluate.measures)
    sets, nearest = _measured(config, features, (*OF_SETS, *own))
    attributes = {name: _balance(name, features, of) for name, of in labels.items()}
    for name, readings in sets.items():
        more = [note for attribute in attributes.values() for note in attribute.shares[name].notes]
        sets[name] = replace(readings, notes=(*readings.notes, *more))
    settings = config.evaluate
    found = Evaluated(
        UsedExtractor(str(settings.extractor), extractor.dimension, extractor.fingerprint, settings.resize),
        len(features["test"].features),
        settings.k,
        sets,
        config.data.resolution,
        config.sample.prior,
        attributes,
        own=own,
    )
    return found, nearest


def prepared(job: Job, source: str, **data: Any) -> tuple[Job, ImageSet]:
    """Images from elsewhere, prepared as the run's own are, below `measured/`; what is there already is kept.

    Args:
        job: the invocation.
        source: anything that data.source takes.
        data: settings of `data` that differ from the run's.
    """
    all_of_it = {"source": source, "attributes": None, "train": 1.0, "test": 0.0, **data}
    config = job.config.model_copy(update={"data": job.config.data.model_copy(update=all_of_it)})
    identity = STAGES["prepare"].fingerprint(config, {}, source_stamp(config.data))
    inner = replace(job, config=config, run=RunDir(job.run.folder(f"measured/{fingerprint(source)[:12]}")))
    ensure(inner, "prepare", identity, prepare.run)
    return inner, ImageSet("images", inner.run.root, image_parts(inner), inner.run.require("prepare", "digest"))


def real_images(job: Job, split: str) -> ImageSet:
    """Prepared images of a split."""
    return ImageSet(split, job.run.root, image_parts(job, split), job.run.require("prepare", "digest"))


def _made(job: Job) -> list[ImageSet]:
    """About `evaluate.n` images of A, where there are any, and what each model draws."""
    sets = []
    decoded = job.run.entry("decode")
    if job.config.evaluate.augmented and decoded and decoded["rows_out"]:
        parts = _some(job.run.finished_parts("decode"), job.config.evaluate.n, job.config.seed)
        sets.append(ImageSet("augmented", job.run.root, parts, decoded["digest"]))
    for model in job.config.evaluate.models:
        if job.run.entry(model) is None:
            continue
        given = {"model": model, "n": job.config.evaluate.n, "format": "parquet"}
        config = job.config.model_copy(update={"sample": job.config.sample.model_copy(update=given)})
        request = Request.of(config, job.run)
        out = RunDir(job.run.folder(f"drawn/{model}"))
        draw_samples(replace(job, config=config), out, request)
        name = {"train": "baseline", "finetune": "finetuned"}[model]
        sets.append(ImageSet(name, out.root, out.finished_parts("sample"), out.require("sample", "digest")))
    return sets


def _detection(job: Job, test: ImageSet) -> tuple[Detection, ...]:
    """AUROC of log LDS for test images against damaged copies and images of something else, at every bandwidth."""
    asked = job.config.evaluate.detection
    if job.run.entry("encode") is None or not (asked.corruptions or asked.others):
        return ()
    groups = latents_of(job, test, asked.corruptions) if asked.corruptions else {}
    if asked.others is not None:
        inner, others = prepared(job, asked.others, upscale=True)
        ((_, groups["others"]),) = latents_of(inner, others, (AS_IS,), job.run).items()
    train, held_out = (read_latents(job.run, split).z for split in ("train", "test"))
    return tuple(detect(train, held_out, groups, scales=asked.scales, paired=asked.corruptions))


def _some(parts: Sequence[tuple[str, int]], n: int, seed: int) -> list[tuple[str, int]]:
    """Parts drawn at random until they have n rows, in their order."""
    drawn, rows = [], 0
    for k in np.random.default_rng([seed, 0]).permutation(len(parts)).tolist():
        if rows >= n:
            break
        drawn.append(k)
        rows += parts[k][1]
    return [parts[k] for k in sorted(drawn)]


def _measured(
    config: Config, features: Mapping[str, SetFeatures], measures: Sequence[Measure]
) -> tuple[dict[str, SetReadings], dict[str, Nearest]]:
    """Readings and nearest training images of each set. Of the training images evaluate.n are drawn at random, so that
    their distances can be set beside those of as many drawn images."""
    sets: dict[str, SetReadings] = {}
    nearest: dict[str, Nearest] = {}
    test, train = features["test"].features, features["train"].features
    for name, found in features.items():
        if name == "test":
            continue
        rows = np.arange(len(found.features))
        if name == "train" and len(rows) > config.evaluate.n:
            drawn = np.random.default_rng([config.seed, 2]).choice(len(rows), config.evaluate.n, replace=False)
            rows = np.sort(drawn)
        if name == "augmented" and len(rows) <= config.evaluate.k:  # after hours of training no error
            few = f"{len(rows)} images of A: too few for evaluate.k = {config.evaluate.k} neighbours"
            sets[name] = SetReadings(len(rows), notes=(few,))
            continue
        sample = Sample(
            found.features[rows],
            test,
            train if name != "train" else train[:0],
            {"sharpness": found.sharpness[rows]},
            config.evaluate.k,
            config.seed,
        )
        sets[name] = measure_set(sample, measures)
        if name != "train":
            copies, _ = sample.once(copies_of)
            nearest[name] = copies.generated if copies else nearest_training(train, found.features)
    real = features["test"]
    alone = measure_set(Sample(test, quality={"sharpness": real.sharpness}), measures)
    # of the reference the value is what counts
    readings = {measure: replace(reading, standard_error=None) for measure, reading in alone.readings.items()}
    sets["test"] = replace(alone, readings=readings)
    return sets, nearest


def label_array(images: ImageSet, name: str) -> np.ndarray:
    """int8[N]: 1, -1, or 0 where an image has no label.

    Raises:
        InputError: the attribute is not known of these images.
    """
    columns = []
    for file, _ in images.parts:
        table = (images.root / file).read_table()
        names = [] if "attributes" not in table.column_names else [f.name for f in table["attributes"].type]
        require_attribute(name, names)
        columns.append(pa.compute.struct_field(table["attributes"], name).fill_null(0).to_numpy())
    return np.concatenate(columns)


def _balance(name: str, features: Mapping[str, SetFeatures], labels: Mapping[str, np.ndarray]) -> Attribute:
    """The share of an attribute in each set, from a probe fitted on training images and judged on test images."""
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


def _gallery(
    images: ImageSet, real: Mapping[str, ImageSet], features: Mapping[str, SetFeatures], nearest: Nearest
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
        keys, shown = images.pictures(rows)
        real_keys, beside = real[split].pictures(near.rows[rows].tolist())
        tables.append(
            pa.table(
                {
                    "kind": [kind] * len(rows),
                    "key": keys,
                    "image": image_column(np.stack(shown), keys),
                    "nearest": real_keys,
                    "nearest_split": [split] * len(rows),
                    "nearest_image": image_column(np.stack(beside), real_keys),
                    "distance": near.distances[rows],
                }
            )
        )
    return pa.concat_tables(tables)
