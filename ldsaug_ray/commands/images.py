"""`ldsaug evaluate --images`: any images against a run's test split."""

from __future__ import annotations

from contextlib import ExitStack

from ldsaug_ray.commands.summary import print_measures
from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.run.opening import open_run_dir, sole_driver
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.stages.evaluate import label_array, prepared, real_images
from ldsaug_ray.stages.shared.checks import require_faiss
from ldsaug_ray.stages.shared.evaluation import evaluated
from ldsaug_ray.stages.shared.features import features_of, opened
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import require_current


def images_command(config: Config, source: str, *, verbose: bool = False) -> int:
    """`ldsaug evaluate --images SOURCE`: any images, from wherever, against the run's test split.

    They are prepared as the run's own are (crop, resolution, quarantine), below `measured/` of the run directory, where
    `metrics.json` goes too. Returns the exit code.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    run = open_run_dir(config, create=False)
    require_current(config, run, ["prepare"])
    extractor = opened(config)
    with ExitStack() as held:
        held.enter_context(sole_driver("run_dir", run.root))
        engine = held.enter_context(engine_of(config, verbose=verbose))
        job = Job(config, run, make_console(), engine, alone=True)
        inner, images = prepared(job, source)
        real = [real_images(job, split) for split in ("test", "train")]
        features = features_of(job, real, extractor.fingerprint)
        features |= features_of(inner, [images], extractor.fingerprint)
        labels = {name: {s.name: label_array(s, name) for s in real} for name in config.evaluate.attributes}
    found, _ = evaluated(config, extractor, features, labels)
    file = inner.run.folder("metrics.json")
    file.write_json({"images": without_password(source), **found.to_json()})
    print_measures(found, job.domain.words)
    for note in found.sets["images"].notes:
        print(job.domain.words(note))
    print(f"numbers  {file.shown}")
    return 0
