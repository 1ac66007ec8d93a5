"""Classifiers that say what A is worth, `evaluate.downstream`: a unit an arm and seed, kept below `downstream/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import fingerprint, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Downstream
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError
from ldsaug_ray.metrics.downstream import ARMS, hits, labels_by_parents, one_hot, summary
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.stages.shared.features import ImageSet, SetFeatures
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.runner import ensure
from ldsaug_ray.stages.shared.units import run_units

LARGEST = 64  # px: larger pictures are many values for a small network, and for memory

Labelled = tuple[np.ndarray, np.ndarray]


def downstream(
    job: Job,
    sets: Mapping[str, ImageSet],
    features: Mapping[str, SetFeatures],
    labels: Mapping[str, np.ndarray],
    extractor: str,
) -> dict[str, Any]:
    """What goes to `metrics.json`.

    Args:
        sets: train, test, and `augmented` where there is an A.
        features: of these sets.
        labels: of train and test, codes int[N], 0 where not known.
        extractor: its fingerprint.

    Raises:
        ConfigError: pixels of pictures that are too large.
        InputError: fewer than two classes among the training images, or no labelled test image.
        ImpossibleError: A's labels are not known of a single image.
    """
    settings = job.config.evaluate.downstream
    values = np.unique(labels["train"][labels["train"] != 0])
    known = np.flatnonzero(labels["test"])
    if len(values) < 2 or not len(known):
        raise InputError(
            f"evaluate.downstream.label = {settings.label}: {len(values)} values among training images, {len(known)} "
            "labelled test images; at least two values and one test image are needed"
        )
    targets = {"train": one_hot(labels["train"], values)}
    if "augmented" in sets:
        targets["augmented"] = _labels_of_a(job, sets["augmented"], values, settings)
    used = {name: sets[name] for name in (*targets, "test")}
    identity = fingerprint(
        [settings.model_dump(mode="json"), {n: [s.digest, s.parts] for n, s in used.items()}, labels_digest(labels)]
        + ([extractor] if settings.of == "features" else [])
    )
    items = {name: _items(job, s, features[name], settings) for name, s in used.items()}
    data: dict[str, Labelled] = {}
    for name, of in targets.items():
        rows = np.flatnonzero(of.any(axis=1))
        data[name] = items[name][rows], of[rows]
    if "augmented" in data and not len(data["augmented"][0]):
        raise ImpossibleError(
            "evaluate.downstream: no image of A has a label, which is its parents'; with downstream.labels: same both "
            "must have one: give soft"
        )
    classes = np.where(np.isin(labels["test"], values), np.searchsorted(values, labels["test"]), -1)[known]
    arms = ARMS if "augmented" in data else ARMS[:1]
    work = [(arm, seed) for arm in arms for seed in range(settings.seeds)]

    def train(inner: Job, done: Mapping[int, UnitResult]) -> Outcome:
        pool = job.pool(job.config.evaluate.workers, "evaluate", limit=len(work))
        results = run_units(
            inner,
            "downstream",
            {n: pa.table({"arm": [arm], "seed": [job.config.seed + seed]}) for n, (arm, seed) in enumerate(work)},
            dict.fromkeys(range(len(work)), len(known)),
            done,
            pool,
            ClassifierWorker,
            (
                [job.engine.share(x) for name in data for x in data[name]],
                job.engine.share(items["test"][known]),
                classes,
                settings,
                inner.run.root,
                pool.gpus > 0,
            ),
            unit_name="test images",
        )
        return Outcome.of(results.values())

    kept = RunDir(job.run.folder("downstream"))
    ensure(replace(job, run=kept), "downstream", identity, train)
    right: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    for (arm, _), (file, _) in zip(work, kept.finished_parts("downstream"), strict=True):
        right[arm].append((kept.root / file).read_table()["right"].to_numpy())
    n_a = len(data["augmented"][0]) if "augmented" in data else 0
    return {
        **settings.model_dump(mode="json"),
        "values": len(values),
        "n": {"train": len(data["train"][0]), "augmented": n_a, "test": len(known)},
        "without_label": {name: len(of) - len(data[name][0]) for name, of in targets.items()},
        **summary(right),
    }


def labels_digest(labels: Mapping[str, np.ndarray]) -> str:
    """Labels may come from another file than images do."""
    return fingerprint({name: of.tolist() for name, of in labels.items()})


def _labels_of_a(job: Job, a: ImageSet, values: np.ndarray, settings: Downstream) -> np.ndarray:
    latents = read_latents(job.run, "train")
    codes = latents.attributes[:, latents.attribute_names.index(str(settings.label))]
    made = pa.concat_tables((a.root / file).read_table(["parent_i", "parent_j", "alpha"]) for file, _ in a.parts)
    parents = np.stack([codes[latents.rows(made[side])] for side in ("parent_i", "parent_j")], axis=1)
    return labels_by_parents(parents, made["alpha"].to_numpy(), values, soft=settings.labels == "soft")


def _items(job: Job, of: ImageSet, features: SetFeatures, settings: Downstream) -> np.ndarray:
    if settings.of == "features":
        return features.features
    found = []
    for file, _ in of.parts:
        pixels = job.domain.pixels(job.domain.unpack((of.root / file).read_table([job.domain.column])))
        if pixels is None or pixels.shape[1] > LARGEST:
            raise ConfigError(
                f"evaluate.downstream.of: pixels is for images of at most {LARGEST} px, and these are "
                f"{job.domain.unit if pixels is None else f'{pixels.shape[1]} px'}; give features"
            )
        found.append(pixels)
    return np.concatenate(found)


class ClassifierWorker:
    """Trains one classifier a call."""

    def __init__(
        self,
        data: Sequence[np.ndarray],
        test: np.ndarray,
        classes: np.ndarray,
        settings: Downstream,
        out: Location,
        gpu: bool,
    ) -> None:
        pairs = list(zip(data[::2], data[1::2], strict=True))  # items and labels
        self.sets = {"train": pairs[:1], "train + A": pairs, "A": pairs[1:]}
        self.test, self.classes, self.settings, self.out = test, classes, settings, out
        self.device = "cuda" if gpu else "cpu"

    def __call__(self, unit: int, part: pa.Table) -> UnitResult:
        right = hits(
            self.sets[part["arm"][0].as_py()],
            self.test,
            self.classes,
            steps=self.settings.steps,
            batch_size=self.settings.batch_size,
            seed=part["seed"][0].as_py(),
            device=self.device,
        )
        table = pa.table({"right": right})
        file = f"parts/part-{unit:06d}.parquet"
        (self.out / file).write_table(table)
        return UnitResult(unit, Counts(len(right), len(right)), table_digest(table), (file,), (len(right),))
