"""Stage `decode`: `selected/` to `augmented/`, the augmented dataset.

PNG images in the Hugging Face layout, so that `datasets` opens them, with z, parents, α and log LDS.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from PIL import Image

from ldsaug_ray.config.settings import Interpolation
from ldsaug_ray.digest import table_digest
from ldsaug_ray.lds import interpolate
from ldsaug_ray.rundir import Counts, UnitResult, total
from ldsaug_ray.stages._job import Job, cluster_resources, pool_of
from ldsaug_ray.stages._outcome import Outcome
from ldsaug_ray.stages._units import run_units
from ldsaug_ray.stages.encode import read_latents, vectors
from ldsaug_ray.storage import Location

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Decode every selected candidate."""
    import ray

    settings = job.config.decode
    job.run.require("select")
    keys, train = read_latents(job, "train")
    pieces = []
    for file in job.run.folder("selected").files(".parquet"):
        table = file.read_table(["candidate", "parent_i", "parent_j", "alpha", "log_lds"])
        pieces += [
            table.slice(a, settings.part_rows).combine_chunks() for a in range(0, len(table), settings.part_rows)
        ]
    units = dict(enumerate(pieces))
    pool = pool_of(settings.workers, "decode", cluster_resources(), limit=len(units))
    weights = job.run.folder("train/vae.safetensors")
    results = run_units(
        job,
        "decode",
        units,
        {n: len(t) for n, t in units.items()},
        done,
        pool,
        DecodeWorker,
        (
            ray.put(train),
            ray.put(np.array(keys)),
            weights,
            settings.batch_size,
            job.config.score.interpolation,
            job.run.root,
            pool.gpus > 0,
        ),
        unit_name="images",
    )
    counts, digest = total(results.values())
    return Outcome(counts, digest)


class DecodeWorker:
    """Holds the decoder and the training latents; one slice of the selected candidates a call."""

    def __init__(
        self,
        train: np.ndarray,
        keys: np.ndarray,
        weights: Location,
        batch_size: int,
        interpolation: Interpolation,
        run: Location,
        gpu: bool,
    ):
        from ldsaug_ray.vae import load_vae

        self.vae = load_vae(weights, "cuda" if gpu else "cpu")
        self.train, self.keys, self.batch_size, self.run = train, keys, batch_size, run
        self.interpolation: Interpolation = interpolation

    def __call__(self, unit: int, selected: pa.Table) -> UnitResult:
        from ldsaug_ray.vae import decode_images

        i, j = (np.searchsorted(self.keys, selected[c].to_numpy().astype(str)) for c in ("parent_i", "parent_j"))
        z = interpolate(self.train, i, j, selected["alpha"].to_numpy(), self.interpolation)
        names = [f"c{c:012d}" for c in selected["candidate"].to_pylist()]
        images = [
            {"bytes": png_bytes(x), "path": f"{name}.png"}
            for x, name in zip(decode_images(self.vae, z, self.batch_size), names, strict=True)
        ]
        table = pa.table(
            {
                "key": names,
                "image": pa.array(images, IMAGE),
                "z": vectors(z),
                **{c: selected[c] for c in ("candidate", "parent_i", "parent_j", "alpha", "log_lds")},
            }
        )
        # `datasets` decodes the column because of this note
        features = {"info": {"features": {"image": {"_type": "Image"}}}}
        file = f"augmented/part-{unit:06d}.parquet"
        (self.run / file).write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}))
        return UnitResult(unit, Counts(len(selected), len(table)), table_digest(table), (file,), (len(table),))


def png_bytes(image: np.ndarray) -> bytes:
    """uint8[H, W, 3] as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
