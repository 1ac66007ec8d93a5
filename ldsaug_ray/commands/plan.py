"""What `--dry-run` prints: stages, rows, resources, what would be skipped, and what would end a run at once."""

from __future__ import annotations

from collections.abc import Collection

from ldsaug_ray.config import Config, Workers
from ldsaug_ray.domains import domain_of
from ldsaug_ray.errors import LdsaugError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.pipeline import COMMANDS, STAGES
from ldsaug_ray.run.progress import print_table
from ldsaug_ray.stages.shared.ahead import check_ahead
from ldsaug_ray.stages.shared.runner import plan_steps

_HEAD = ("what", "rows", "workers ask for", "state")


def print_plan(config: Config, run: RunDir, names: list[str]) -> None:
    """The plan of `--dry-run`: stages, rows where known, resources, what is skipped.

    Raises:
        InputError: the source is there, but these settings cannot be run on it.
    """
    images: tuple[int, int] | None = None
    labels: Collection[str] | None = (run.entry("prepare") or {}).get("attributes")
    wrong: LdsaugError | None = None
    steps = plan_steps(config, run, names)
    if any(s.stage == "prepare" and s.fingerprint is not None and s.state != "complete" for s in steps):
        try:
            images, labels = _planned_images(config)
        except LdsaugError as e:
            wrong = e
    rows, said = [], domain_of(config).words
    for step in steps:
        name, state = (
            step.stage,
            {"complete": "skip", "continue": "continue", "run": "run", "waiting": "run"}[step.state],
        )
        known = _known_rows(config, run, name, images)
        does = said(STAGES[name].does) if name != "prepare" else domain_of(config).prepares
        rows.append((name, does, said(known), _asked(config, name), f"{state}: {step.why}"))
    print_table(f"plan for {run.root.shown}", ("stage", *_HEAD), rows, 150, "f")
    n = _training_latents(config, run, images)
    left = {s.stage for s in steps if s.state != "complete"}
    if n and left & {"score", "select", "evaluate"}:
        check_ahead(config, n, labels, domain_of(config).unit)
    if n and config.score.noise and "score" in left:
        print(_price_of_noise(config, n))
    judged = config.select.rule.judged(config.select)
    if judged and "select" in left:
        print(
            f"select.rank: {config.select.rank}: every one of {config.score.n_candidates:,} candidates is decoded and "
            "judged, once, where A alone would be"
        )
    if wrong is not None:
        raise wrong


def print_sample_plan(config: Config, out: RunDir, model: str, state: str) -> None:
    """The plan of `ldsaug sample --dry-run`."""
    what = f"{COMMANDS['sample'].does}: {model}, prior {config.sample.prior}, as {config.sample.format}"
    how = {"complete": "skip: already complete", "continue": "continue: was interrupted", "run": "run"}[state]
    said = domain_of(config).words
    row = ("sample", said(what), said(f"{config.sample.n:,} images"), _asked(config, "sample"), how)
    print_table(f"plan for {out.root.shown}", ("command", *_HEAD), [row], 150, "f")


def _training_latents(config: Config, run: RunDir, images: tuple[int, int] | None) -> int | None:
    """How many there will be, where that can be known."""
    prepared = run.entry("prepare")
    if prepared is not None:
        return int(prepared["train_images"])
    if isinstance(config.data.train, int):
        return config.data.train
    return images[1] - config.data.test if images and isinstance(config.data.test, int) else None


def _planned_images(config: Config) -> tuple[tuple[int, int], Collection[str]]:
    """Images that the source lists, and those of the two splits; the labels that they have."""
    from ldsaug_ray.domains.prepare import plan
    from ldsaug_ray.domains.sources.attributes import load_attributes

    domain = domain_of(config)
    work = plan(domain, domain.open(config.data), config.data, config.seed, load_attributes(config.data))
    return (work.n_listed, work.n_train + work.n_test), work.attribute_names or ()


def _known_rows(config: Config, run: RunDir, stage: str, images: tuple[int, int] | None) -> str:
    entry = run.entry(stage)
    if entry is not None:
        return f"{entry['rows_in']:,} {STAGES[stage].unit}"
    data, score = config.data, config.score
    if stage == "prepare":
        return f"{images[0]:,} images" if images else "not known yet"
    if stage in ("train", "finetune"):
        section = config.train if stage == "train" else config.finetune
        if not section.steps:
            return "nothing to train"
        return f"{section.steps:,} steps × {section.batch_size}"
    if stage == "encode":
        prepared = run.entry("prepare")
        if prepared is not None:
            return f"{prepared['rows_out']:,} images"
        if images:
            return f"{images[1]:,} images"
        counted = isinstance(data.train, int) and isinstance(data.test, int)
        return f"{data.train + data.test:,} images" if counted else "not known yet"
    if stage == "evaluate":
        return f"{config.evaluate.n * len(config.evaluate.models):,} drawn images"
    if stage in ("score", "select"):
        return f"{score.n_candidates:,} candidates"
    if stage == "decode":
        return _expected_selection(config)
    return "1 page" if stage == "report" else "not known yet"


def _expected_selection(config: Config) -> str:
    select, n = config.select, config.score.n_candidates
    if not select.rule.keeps:
        return "none"
    limits = [max(1, int(select.top_fraction * n + 0.5))] if select.top_fraction is not None else []
    limits += [min(n, select.top_count)] if select.top_count is not None else []
    if not limits:
        return "as many as pass"
    bounded = select.tau is not None or select.typical is not None
    return f"{'at most ' if bounded else 'about ' if select.stratify else ''}{min(limits):,} images"


def _price_of_noise(config: Config, n: int) -> str:
    """What a row of its own for every candidate costs, over n training latents."""
    score = config.score
    rows_of_noise = f"score.noise: a row of the matrix product for each of {score.n_candidates:,} candidates"
    if score.plan == "single":  # which is nothing without noise
        return rows_of_noise
    unit = min(score.unit_candidates, score.n_candidates)
    parents = min(n, 2 * -(-unit // len(score.plan_alphas)))  # at most, of a unit
    rows = parents * -(-score.n_candidates // unit)
    return f"{rows_of_noise}; without noise for {rows:,} parents: {score.n_candidates / rows:.1f} times the products"


def _asked(config: Config, stage: str) -> str:
    section = config.data if stage == "prepare" else getattr(config, stage, None)
    if stage == "select" and config.select.rule.judged(config.select):
        section = config.decode
    workers = getattr(section, "workers", None)
    if not isinstance(workers, Workers):
        return "the driver alone"
    if config.engine == "inline":
        return f"this process ({workers.cpus:g} CPU)"
    gpus = "1 GPU where there is one" if workers.gpus == "auto" else f"{workers.gpus:g} GPU" if workers.gpus else ""
    memory = f"{workers.memory_gb:g} GB" if workers.memory_gb else ""
    each = ", ".join(x for x in (f"{workers.cpus:g} CPU", gpus, memory) if x)
    count = "as many as fit" if workers.count == "auto" else f"{workers.count}"
    return f"{count} × ({each})"
