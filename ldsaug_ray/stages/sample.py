"""`ldsaug sample`: images from a trained VAE to a folder of their own, through a pool of decoders.

Latents come from a prior (`models/priors`), sample k from (seed, k) alone. The folder is kept as a run directory is: a
manifest, markers of finished units, and `images/` with Parquet parts or PNG files; so the same command again continues.

Which latents a prior is fitted to follows from the model that samples. The baseline's are
`latents/`. The fine-tuned encoder has moved them: it encodes the training images again, once, to `finetune/latents/`,
and A's latents are the interpolants of the same parents there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.digest import code_digest, fingerprint, table_digest
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, facts_of
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import sole_driver
from ldsaug_ray.run.pipeline import STAGES, Stage, declare
from ldsaug_ray.stages.encode import encode_parts, image_parts
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.prior import kept_prior
from ldsaug_ray.stages.shared.runner import ensure, require_current
from ldsaug_ray.stages.shared.units import run_units

if TYPE_CHECKING:
    from ldsaug_ray.models.priors import Draws


def counted_of(config: Config) -> dict[str, Any]:
    """Settings that count by their names; model, seed and whether A is used count by what they come to."""
    sample = config.sample.model_dump(mode="json")
    names = ("n", "prior", "format", "batch_size", "part_rows", *config.sample.source.settings)
    return {name: sample[name] for name in names}


SAMPLE = declare(
    Stage(
        name="sample",
        does="draw from a model",
        unit="images",
        writes=("images",),  # in a folder of its own; its settings say which stages it reads
        also=lambda config: {"sample": counted_of(config)},
        role="command",
    )
)


@dataclass(frozen=True)
class Request:
    """What the settings come to on this run; equal fingerprints give equal images."""

    model: Literal["train", "finetune"]
    seed: int
    with_augmented: bool
    weights: Location
    fingerprint: str

    @classmethod
    def of(cls, config: Config, run: RunDir) -> Request:
        """Resolve `auto` and what is not given.

        Raises:
            InputError: a stage that is read is not complete, or out of date.
        """
        sample, select = config.sample, config.select
        model: Literal["train", "finetune"] = "train" if sample.model == "train" else "finetune"
        if sample.model == "auto" and run.entry("finetune") is None:
            model = "train"
        fitted = sample.source.reads != "nothing"
        uses = model == "finetune" and config.finetune.uses.prior and select.rule.keeps
        augmented = fitted and (uses if sample.with_augmented == "auto" else sample.with_augmented)
        reads: list[str] = [model]
        if fitted:
            reads.append("encode" if model == "train" else "prepare")
        if augmented:
            reads.append("decode")
        require_current(config, run, reads)
        seed = config.seed if sample.seed is None else sample.seed
        read = {stage: run.require(stage, "digest") for stage in reads}
        how = [config.score.interpolation, config.finetune.lds_weight] if augmented else []
        own = [code] if (code := code_digest([sample.prior])) else []
        identity = fingerprint([model, seed, augmented, read, how, *own])
        return cls(
            model, seed, augmented, run.folder(f"{model}/vae.safetensors"), SAMPLE.fingerprint(config, {}, identity)
        )


def draw_samples(job: Job, out: RunDir, request: Request) -> None:
    """Bring the images of a request to completion.

    Args:
        out: where images, markers and a manifest go.

    Raises:
        InputError: latents that no prior can be fitted to, or a VAE that decodes to what is no image.
    """
    ensure(replace(job, run=out), "sample", request.fingerprint, lambda _, done: _draw(job, out, request, done))


def _draw(job: Job, out: RunDir, request: Request, done: Mapping[int, UnitResult]) -> Outcome:
    settings = job.config.sample
    prior, facts = _prior(job, out, request)
    step = settings.part_rows
    ranges = [(a, min(a + step, settings.n)) for a in range(0, settings.n, step)]
    pool = job.pool(settings.workers, "sample", limit=len(ranges))
    results = run_units(
        replace(job, run=out),
        "sample",
        {n: pa.table({"start": [a], "stop": [b]}) for n, (a, b) in enumerate(ranges)},
        {n: b - a for n, (a, b) in enumerate(ranges)},
        done,
        pool,
        SampleWorker,
        (
            job.engine.share(prior),
            request.seed,
            request.weights,
            settings.batch_size,
            out.root,
            settings.format,
            pool.gpus > 0,
            job.config.domain,
            facts_of(job.run.root),
        ),
        unit_name="images",
    )
    known = {"model": request.model, "weights": job.run.require(request.model, "digest"), "seed": request.seed}
    return Outcome.of(results.values(), {**known, "format": settings.format, "prior": settings.prior, **facts})


class SampleWorker:
    """Holds the decoder and the prior; a range of samples a call."""

    def __init__(
        self,
        prior: Draws,
        seed: int,
        weights: Location,
        batch_size: int,
        out: Location,
        layout: Literal["parquet", "png"],
        gpu: bool,
        domain: str,
        facts: Mapping[str, Any],
    ):
        from ldsaug_ray.models import load_vae

        self.vae = load_vae(weights, "cuda" if gpu else "cpu")
        self.prior, self.seed, self.batch_size, self.out, self.layout = prior, seed, batch_size, out, layout
        self.domain, self.facts = DOMAINS.get(domain), facts

    def __call__(self, unit: int, numbers: pa.Table) -> UnitResult:
        from ldsaug_ray.models import decode_batch

        start, stop = numbers["start"][0].as_py(), numbers["stop"][0].as_py()
        z = self.prior.sample(start, stop, self.seed)
        names = [f"s{n:09d}" for n in range(start, stop)]
        batch = decode_batch(self.vae, z, self.batch_size)
        items = self.domain.export(batch, names, self.facts)
        table = pa.table({"key": names, self.domain.column: items, "z": vectors(z)})
        files: tuple[str, ...] = (f"images/part-{unit:06d}.parquet",)
        if self.layout == "parquet":
            (self.out / files[0]).write_table(table.replace_schema_metadata(self.domain.metadata))
        else:
            files = tuple(f"images/{name}.png" for name in names)
            for file, picture in zip(files, items.to_pylist(), strict=True):
                (self.out / file).write_bytes(picture["bytes"])
        rows = (len(table),) if self.layout == "parquet" else (1,) * len(files)
        return UnitResult(unit, Counts(len(table), len(table)), table_digest(table), files, rows)


def sentence_of(entry: Mapping[str, Any]) -> str:
    """What was drawn, in a sentence."""
    model = "the baseline" if entry["model"] == "train" else "the fine-tuned VAE"
    source = entry.get("sentence", entry["prior"])  # manifests of before have none
    return f"drew {entry['rows_out']:,} images from {model}, latents from {source}; seed {entry['seed']}"


def _prior(job: Job, out: RunDir, request: Request) -> tuple[Draws, dict[str, Any]]:
    """The prior, and what the manifest says of it. What was fitted is kept beside the markers: a resumed command must
    draw from the same, to the last bit, on whatever machine it runs."""
    from ldsaug_ray.models import read_latent_dim

    settings = job.config.sample
    folder, dim = out.folder("_progress/sample"), read_latent_dim(request.weights)
    draws, noted = kept_prior(
        folder, settings.prior, settings, request.seed, dim, lambda: _latents(job, request), job.console
    )
    latents = f"{noted.get('latents', 0):,} latents"
    if noted.get("augmented"):
        latents += f" and {noted['augmented']:,} of A"
    return draws, {**noted, "sentence": settings.source.sentence(noted, latents)}


def _latents(job: Job, request: Request) -> tuple[np.ndarray, dict[str, int]]:
    """Latents of the training images, by key, then those of A, by candidate: float32[N + M, d]; and N and M.

    Where A weighs by LDS, its rows are drawn again in proportion, as many as there are: scikit-learn's mixture takes no
    weights, and both priors shall mean the same.
    """
    from ldsaug_ray.lds import Noise, lds_weights
    from ldsaug_ray.models.priors import resampled_rows

    source = job if request.model == "train" else _encoded_again(job, request)
    latents = read_latents(source.run, "train")
    z = latents.z
    if not request.with_augmented:
        return z, {"latents": len(z), "augmented": 0}
    columns = ["candidate", "parent_i", "parent_j", "alpha", "log_lds"]
    made = pa.concat_tables(f.read_table(columns) for f in job.run.folder("augmented").files(".parquet"))
    made = made.sort_by("candidate")
    a = latents.between(made, job.config.score.interpolation, Noise.kept(job.run.require("score"), job.config.seed))
    if job.config.finetune.lds_weight:
        weights = lds_weights(made["log_lds"].to_numpy(), job.config.finetune.lds_weight)
        a = a[resampled_rows(weights, request.seed)]
    return np.concatenate([z, a]), {"latents": len(z), "augmented": len(a)}


def _encoded_again(job: Job, request: Request) -> Job:
    """A job whose `latents/` are the training images' under the fine-tuned encoder: `finetune/latents/`, made once.

    They lie below finetune's folder, and so are deleted when it is trained again.
    """
    config, root = job.config, job.run.folder("finetune")
    identity = STAGES["encode"].fingerprint(
        config, {"prepare": job.run.require("prepare", "digest"), "train": job.run.require("finetune", "digest")}
    )

    inner = replace(job, run=RunDir(root))
    if inner.run.is_complete("encode", identity):
        return inner
    with nullcontext() if job.alone else sole_driver("run_dir", job.run.root):
        inner = replace(job, run=RunDir(root))  # another command may just have made them
        ensure(inner, "encode", identity, lambda inner, done: _encode(inner, job, request, done))
    return inner


def _encode(inner: Job, job: Job, request: Request, done: Mapping[int, UnitResult]) -> Outcome:
    parts = image_parts(job, "train")
    return Outcome.of(encode_parts(inner, parts, job.run.root, request.weights, done).values())
