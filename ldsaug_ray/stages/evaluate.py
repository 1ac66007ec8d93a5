"""Stage `evaluate`: images drawn from the models against held-out real ones, to `evaluate/metrics.json`.

Each set (`train` and `test` images, A, what each model draws) becomes features once, kept below `features/`; drawn
images are kept below `drawn/`. The test images are the reference of every measure; the training images are measured
like a generated set too, since what real images reach is what a model can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.config import Config
from ldsaug_ray.domains.sources.attributes import require_attribute
from ldsaug_ray.errors import ImpossibleError
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, facts_of
from ldsaug_ray.run.latents import label_codes, read_latents
from ldsaug_ray.run.pipeline import STAGES, Stage, declare
from ldsaug_ray.stages import prepare
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.stages.sample import Request, counted_of, draw_samples
from ldsaug_ray.stages.shared.features import ImageSet, features_of, opened
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.runner import ensure

if TYPE_CHECKING:
    from ldsaug_ray.metrics import Detection


def _also(config: Config) -> Mapping[str, Any]:
    """How images are drawn, and by which seeds."""
    drawn = {name: value for name, value in counted_of(config).items() if name not in ("n", "format")}
    return {"sample": drawn, "seeds": [config.seed, config.sample.seed, config.sample.with_augmented]}


STAGE = declare(
    Stage(
        name="evaluate",
        does="Fréchet distance, density, coverage, copies, balance of generated images",
        unit="images",
        needs=("prepare", "train"),
        uses=("encode", "decode", "finetune"),
        writes=("evaluate",),
        sections=("evaluate",),
        also=_also,
    )
)
# features of each set of images, below `features/`
FEATURES = declare(
    Stage(name="features", does="features of stored images", unit="images", writes=("parts",), role="kept")
)
# classifiers of `evaluate.downstream`, below `downstream/`
DOWNSTREAM = declare(
    Stage(name="downstream", does="classifiers on A", unit="test images", writes=("parts",), role="kept")
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Draw, extract, measure.

    Raises:
        ConfigError: no extractor is set, or it is unknown, or needs a package that is not installed.
        InputError: its weights are missing or damaged, it cannot take these images, or an attribute has no labels of
            both kinds.
        ImpossibleError: there are too few images to measure.
    """
    from ldsaug_ray.metrics import OF_SETS, own_measures
    from ldsaug_ray.stages.shared.downstream import downstream
    from ldsaug_ray.stages.shared.evaluation import evaluated, gallery

    config = job.config
    extractor = opened(config)
    real = {split: real_images(job, split) for split in ("test", "train")}
    if len(real["test"]) <= config.evaluate.k:
        raise ImpossibleError(
            f"evaluate.k = {config.evaluate.k} neighbours need more than the {len(real['test'])} test "
            f"{job.domain.unit}; raise data.test or lower evaluate.k"
        )
    sets = [real["train"], *_made(job)]
    features = features_of(job, [real["test"], *sets], extractor.fingerprint)
    looked_at = any(job.domain.name in m.needs for m in (*OF_SETS, *own_measures(config.evaluate.measures)))
    items = {s.name: s.batch(job.domain) for s in (real["test"], *sets)} if looked_at else {}
    labels = {name: {s.name: label_array(s, name) for s in real.values()} for name in config.evaluate.attributes}
    found, nearest = evaluated(config, extractor, features, labels, items)
    known = replace(found, detection=_detection(job, real["test"]))
    if label := config.evaluate.downstream.label:
        of = {name: label_array(images, label, "evaluate.downstream.label") for name, images in real.items()}
        here = real | {images.name: images for images in sets if images.name == "augmented"}
        known = replace(known, downstream=downstream(job, here, features, of, extractor.fingerprint))
    record = known.to_json()
    folder = job.run.folder("evaluate")
    for images in sets:
        if images.name in nearest:
            table = gallery(images, real, features, nearest[images.name], job.domain, facts_of(job.run.root))
            (folder / f"gallery-{images.name}.parquet").write_table(table)
    (folder / "metrics.json").write_json(record)
    n = sum(len(f.features) for f in features.values())
    return Outcome(
        Counts(n, n),
        fingerprint(record),
        {
            name: record[name]
            for name in ("extractor", "k", "sets", "detection", "downstream", "measures")
            if name in record
        },
    )


def prepared(job: Job, source: str, **data: Any) -> tuple[Job, ImageSet]:
    """Images from elsewhere, prepared as the run's own are, below `measured/`; what is there already is kept."""
    all_of_it = {"source": source, "attributes": None, "train": 1.0, "test": 0.0, **data}
    config = job.config.model_copy(update={"data": job.config.data.model_copy(update=all_of_it)})
    identity = STAGES["prepare"].fingerprint(config, {}, job.domain.stamp(config.data))
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
    from ldsaug_ray.metrics import detect
    from ldsaug_ray.stages.shared.damaged import AS_IS, latents_of

    asked = job.config.evaluate.detection
    if job.run.entry("encode") is None or not (asked.corruptions or asked.others):
        return ()
    groups = latents_of(job, test, asked.corruptions) if asked.corruptions else {}
    if asked.others is not None:
        like = job.domain.alike(facts_of(job.run.root))
        inner, others = prepared(job, asked.others, upscale=True, **like)
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


def label_array(images: ImageSet, name: str, setting: str = "evaluate.attributes") -> np.ndarray:
    """int32[N]: 1, -1, or 0 where an image has no label; of one with many values the label + 1, or 0.

    Raises:
        InputError: the attribute is not known of these images.
    """
    columns = []
    for file, _ in images.parts:
        table = (images.root / file).read_table()
        names = [] if "attributes" not in table.column_names else [f.name for f in table["attributes"].type]
        require_attribute(name, names, setting=setting)
        columns.append(label_codes(pa.compute.struct_field(table["attributes"], name)))
    return np.concatenate(columns)
