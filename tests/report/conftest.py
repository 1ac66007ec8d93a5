"""Small finished runs without Ray: the stages' own workers, called in a loop, on scikit-learn's digits."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from ldsaug_ray.config import Config
from ldsaug_ray.domains.images import image_array, load_attributes, open_source, plan
from ldsaug_ray.engines.inline import InlineEngine
from ldsaug_ray.lds import resolve_sigma
from ldsaug_ray.lds.shards import Frame
from ldsaug_ray.models import Trainer, build_vae, load_vae, save_vae, weights_digest
from ldsaug_ray.run.directory import Counts, mark, total
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.stages import select
from ldsaug_ray.stages.decode import DecodeWorker
from ldsaug_ray.stages.encode import EncodeWorker, image_parts
from ldsaug_ray.stages.prepare import PrepareWorker
from ldsaug_ray.stages.shared.held_out import score_held_out
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.scorers import ScoreWorker

HOSTILE = "<script>alert(1)</script>.png"


def _settings(run_dir: Path, source: str, changes: dict[str, Any]) -> Config:
    tree: dict[str, Any] = {
        "run_dir": str(run_dir),
        "data": {"source": source, "resolution": 16, "upscale": True, "train": 120, "test": 24, "part_rows": 64},
        "vae": {"latent_dim": 16, "channel_base": 128, "channel_max": 16, "mapping_layers": 2},
        "train": {"steps": 30, "batch_size": 16, "log_every": 5, "objective": {"beta": 0.05}},
        "finetune": {"steps": 10, "batch_size": 16},
        "score": {"n_candidates": 1500, "part_candidates": 512},
        "select": {"top_fraction": 0.2},
        "decode": {"batch_size": 32},
        "report": {"samples": 6, "bands": 4},
        "tracking": {"enabled": False},
    }
    for name, section in changes.items():
        tree[name] = {**tree[name], **section} if isinstance(section, dict) else section
    return Config.model_validate(tree)


def job_of(config: Config) -> Job:
    """A job with a silent console."""
    return Job(config, open_run_dir(config), Console(file=io.StringIO()), InlineEngine(config))


def _train(job: Job, stage: str, settings: Any, images: np.ndarray, initial: str | None) -> None:
    run, config = job.run, job.config
    vae = load_vae(run.folder(initial)) if initial else build_vae(config.vae, config.data.resolution, config.seed)
    trainer = Trainer(vae, settings, config.seed, "cpu")
    order = np.random.default_rng(config.seed)
    curve = []
    for _ in range(settings.steps):
        terms = trainer.train_step(images[order.integers(len(images), size=settings.batch_size)])
        curve.append({"step": trainer.step, **terms})
    save_vae(run.folder(stage) / "vae.safetensors", trainer.model)
    (run.folder(stage) / "curve.json").write_bytes(json.dumps(curve).encode())
    run.finish(
        stage, "f", Counts(len(images), len(images)), weights_digest(trainer.model), 2.5, 100, resumed_from_step=0
    )


def _units(job: Job, stage: str, worker: Callable[..., Any], tables: list[pa.Table], *, more: Any = None) -> None:
    results = [worker(n, table) for n, table in enumerate(tables)]
    for result in results:
        mark(job.run.root, stage, result)
    counts, digest = total(results)
    extra, facts = more(results) if more else (Counts(), {})
    job.run.finish(stage, "f", counts + extra, digest, 1.5, counts.rows_in, **facts)


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny matrices: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def make_run(run_dir: Path, source: str = "sklearn:digits", finetune: bool = True, **changes: Any) -> Job:
    """A run directory with every stage before `report` complete; `changes` are sections of the settings."""
    torch.manual_seed(0)
    job = job_of(_settings(run_dir, source, changes))
    config, run = job.config, job.run
    opened, attributes = open_source(config.data), load_attributes(config.data)
    work = plan(opened, config.data, config.seed, attributes)

    def prepared(results: list[Any]) -> tuple[Counts, dict[str, Any]]:
        if len(work.quarantine):
            (run.folder("quarantine/prepare") / "listing.parquet").write_table(work.quarantine)
        done = sum((r.counts for r in results), Counts())
        train = int(sum(r.extra["train"] for r in results))
        rest = Counts(work.n_listed - done.rows_in, 0, work.n_dropped_unused, len(work.quarantine))
        return rest, {"train_images": train, "test_images": done.rows_out - train, "rows_resumed": 64}

    _units(job, "prepare", PrepareWorker(opened, config, attributes, run.root), list(work.units), more=prepared)
    real = np.concatenate([image_array(run.folder(f).read_table()) for f, _ in image_parts(job, "train")])
    _train(job, "train", config.train, real, None)
    parts = [run.folder(f).read_table() for f, _ in image_parts(job)]
    encoder = EncodeWorker(run.folder("train/vae.safetensors"), 32, run.root, False)
    _units(job, "encode", encoder, parts, more=lambda _: (Counts(), {"latent_dim": encoder.vae.latent_dim}))
    latents = read_latents(run, "train")
    train = latents.z
    bandwidth = resolve_sigma(train, config.score, config.seed)
    n, step = config.score.n_candidates, 512 // len(config.score.alphas) * len(config.score.alphas)
    ranges = [pa.table({"start": [a], "stop": [min(a + step, n)]}) for a in range(0, n, step)]
    scorer = ScoreWorker([train], Frame.over(train), latents.keys, config, [bandwidth.sigma], [run.root])
    ((held_out, _),) = score_held_out(job, train, [bandwidth.sigma], [run])
    facts: dict[str, Any] = {
        "sigma": bandwidth.sigma,
        "sigma_rule": bandwidth.rule,
        "sigma_numbers": bandwidth.numbers,
        "sigma_sentence": bandwidth.sentence,
        "latents": len(latents),
    }
    facts["held_out"] = None if held_out is None else asdict(held_out)
    _units(job, "score", scorer, ranges, more=lambda _: (Counts(), facts))
    outcome = select.run(job, {})
    run.finish("select", "f", outcome.counts, outcome.digest, 0.5, outcome.counts.rows_in, **outcome.facts)
    if finetune:
        columns = ["candidate", "parent_i", "parent_j", "alpha", "log_lds"]
        chosen = [f.read_table(columns) for f in run.folder("selected").files(".parquet")]
        weights = run.folder("train/vae.safetensors")
        _units(job, "decode", DecodeWorker(latents, weights, 32, "linear", run.root, False), chosen)
        _train(job, "finetune", config.finetune, real, "train/vae.safetensors")
    return job


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    """The same for reading the runs."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def digits_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Digits with attributes, fine-tuned."""
    folder = tmp_path_factory.mktemp("digits") / "a run"
    return make_run(folder, data={"attributes": "columns"})


@pytest.fixture(scope="session")
def rules_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Digits under the rules that look at the latents: sigma by the parents' share, a band of held-out real latents."""
    return make_run(
        tmp_path_factory.mktemp("rules") / "run",
        finetune=False,
        train={"steps": 2, "batch_size": 16},
        score={"n_candidates": 1500, "sigma": {"rule": "parent_share", "share": 0.2}},
        select={"tau": "auto", "typical": 0.5, "top_fraction": 0.9, "stratify": True},
    )


@pytest.fixture(scope="session", params=["none", "random"])
def control_job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Digits of which nothing is selected, or what chance selects."""
    return make_run(
        tmp_path_factory.mktemp(request.param) / "run",
        finetune=request.param == "random",
        data={"attributes": "columns"},
        train={"steps": 2, "batch_size": 16},
        select={"which": request.param},
    )


@pytest.fixture(scope="session")
def folder_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Hostile names and a broken image, no attributes, no test images; one candidate selected; not fine-tuned."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    (folder / "<script>alert(1)<").mkdir()
    for n in range(10):
        name = HOSTILE if n == 0 else f"a{n}&b.png"
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / name)
    (folder / "<img src=x onerror=alert(2)>.png").write_bytes(b"not an image")
    return make_run(
        tmp_path_factory.mktemp("run") / "<b>bold",
        str(folder),
        finetune=False,
        data={"train": 1.0, "test": 0.0, "upscale": False, "part_rows": 16, "max_quarantined_fraction": 1.0},
        train={"steps": 2, "batch_size": 4, "objective": {"beta": 0.05}},
        score={"n_candidates": 90},
        select={"top_fraction": None, "top_count": 1, "exclude_parents": True},
    )
