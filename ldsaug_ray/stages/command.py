"""One command from settings to summary: open the run directory, attach to Ray, run the stages, keep MLflow honest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.common.storage import Location, folder_is_temporary
from ldsaug_ray.config import Config, Workers
from ldsaug_ray.errors import InputError, LdsaugError, ResourceError
from ldsaug_ray.run.directory import RunDir, open_run_dir
from ldsaug_ray.run.pipeline import COMMANDS, STAGES
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.run.tracking import Status, Tracker, first_line, view_command
from ldsaug_ray.stages._job import Job
from ldsaug_ray.stages._session import ray_session
from ldsaug_ray.stages.runner import plan_steps, run_stages

_WITHOUT_RAY = {"select", "report"}  # work on the driver


def stages_of(command: str, config: Config) -> list[str]:
    """Stages that a command runs. `train` reads the images first; it is the first stage that needs them."""
    if command == "run":
        return [name for name in STAGES if name != "evaluate" or config.evaluate.extractor is not None]
    return ["prepare", "train"] if command == "train" else [command]


def run_command(
    config: Config, command: str, *, dry_run: bool = False, overwrite: bool = False, verbose: bool = False
) -> int:
    """Run a stage or all of them; prints a summary table to standard output. Returns the exit code.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    names = stages_of(command, config)
    if dry_run:
        run = open_run_dir(config, overwrite=overwrite, create=False)
        print_plan(config, run, names)
        if "evaluate" in names:
            try:
                try_extractor(config, run)
            except LdsaugError as e:  # as a source that cannot be seen from here: the plan stands
                print(f"evaluate: as things are here, a run would end at once: {e}")
        return 0
    if "evaluate" in names:
        try_extractor(config, open_run_dir(config, overwrite=overwrite, create=False))
    seen_by_all("run_dir", config.run_dir)
    with ExitStack() as held:
        run = open_run_dir(config, overwrite=overwrite, held=held)
        job = Job(config, run, make_console(), verbose, alone=True)
        tracked = config.tracking.enabled and command == "run"
        send = held.enter_context(tracked_run(job, names)) if tracked else nothing
        alone = set(names) <= _WITHOUT_RAY or all(s.state == "complete" for s in plan_steps(config, run, names))
        with nullcontext() if alone else ray_session(config, verbose=verbose):
            happened = run_stages(job, names, finished=send)
    print_summary(run, names, happened)
    if "evaluate" in names:
        print_measures(run.require("evaluate"))
    if "report" in names:
        print(f"report  {place_of(run.folder('report') / 'index.html')}")
    if tracked:
        print(f"MLflow  {view_command()}")
    return 0


def try_extractor(config: Config, run: RunDir) -> None:
    """Open it now, where it will be needed: training takes hours, and a file that is missing then is missing now.

    Raises:
        ConfigError, InputError: it is unknown, its weights are missing or damaged, or it does not do its job.
    """
    (step,) = plan_steps(config, run, ["evaluate"])
    if step.state != "complete":
        from ldsaug_ray.stages._features import opened

        opened(config)


def seen_by_all(name: str, uri: str) -> None:
    """Every process of Ray must see the folder that the setting `name` gives.

    Raises:
        InputError: they do not.
    """
    if uri.startswith("memory:"):
        raise InputError(f"{name} {uri}: memory:// is seen by one process alone, and Ray has several")
    if folder_is_temporary() and "://" not in uri and not Path(uri).expanduser().is_absolute():
        raise InputError(
            f"{name} {uri}: a job's working folder goes with the job; give a whole path on storage that every node "
            "reaches, or a URI such as s3://bucket/run"
        )


def nothing() -> None:
    """What is sent where nothing is tracked."""


@contextmanager
def tracked_run(job: Job, names: Sequence[str], tags: Mapping[str, str] | None = None) -> Iterator[Callable[[], None]]:
    """An MLflow run around the stages; gives what sends the news. A server that goes away must not end the run.

    Args:
        job: the invocation.
        names: stages to tell of.
        tags: further tags of the run.

    Raises:
        StorageError: the server does not answer at the start.
    """
    tracker = Tracker.start(job.config, job.run, tags)
    told = False

    def send() -> None:
        nonlocal told
        try:
            tracker.send(job.config, job.run, names)
        except Exception as e:
            if not told:
                job.console.print(
                    f"MLflow does not answer ({first_line(e)}); the run goes on, what MLflow lacks is sent later",
                    highlight=False,
                )
            told = True

    status: Status = "FAILED"
    try:
        yield send
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        status = "KILLED"
        raise
    finally:
        try:
            tracker.send(job.config, job.run, names)
            tracker.end(status)
        except Exception as e:
            job.console.print(
                f"MLflow could not be told that the run is {status} ({first_line(e)}); the same command again tells it",
                highlight=False,
            )


def require_faiss() -> None:
    """One of the extras cpu, gpu must be installed; both give the module `faiss`.

    Raises:
        ResourceError: neither is.
    """
    if find_spec("faiss") is None:
        raise ResourceError(
            "FAISS is not installed; run pip install 'ldsaug_ray[cpu]', or 'ldsaug_ray[gpu]' on a machine with a GPU"
        )


def print_summary(run: RunDir, names: list[str], happened: Mapping[str, str]) -> None:
    """Rows in, kept, dropped, quarantined, seconds and rate of each stage."""
    table = Table(title=f"run {place_of(run.root)}", title_justify="left")
    table.add_column("stage")
    for column in ("in", "kept", "dropped", "quarantined", "seconds", "rate"):
        table.add_column(column, justify="right")
    table.add_column("")
    words = {"complete": "already complete", "continue": "continued", "run": "", "waiting": ""}
    for name in names:
        entry = run.require(name)
        counts = [f"{entry[k]:,}" for k in ("rows_in", "rows_out", "rows_dropped", "rows_quarantined")]
        rate = entry["rows_per_second"]
        speed = f"{rate:,.0f} {COMMANDS[name].unit}/s" if rate and name != "report" else ""
        table.add_row(name, *counts, f"{entry['seconds']:,.1f}", speed, words[happened.get(name, "run")])
    Console(soft_wrap=False, width=None if Console().is_terminal else 110).print(table)
    selected = run.entry("select")
    if selected and "select" in names:
        print(_selection(selected))
    decoded = run.entry("decode")
    if decoded and "decode" in names and "sharpest" in decoded:
        print(
            f"kept {decoded['rows_out']:,} of {decoded['rows_in']:,} decoded images, the sharpest: variance of the "
            f"Laplacian ≥ {decoded['least_sharpness']:.4g}"
        )


def print_measures(entry: Mapping[str, Any]) -> None:
    """A row a set: what `evaluate` found, from the manifest or from `metrics.json`."""
    from ldsaug_ray.metrics import MEASURES

    sets, extractor = entry["sets"], entry["extractor"]
    table = Table(
        title=f"against {sets['test']['n']:,} test images; features: {extractor['name']}, {extractor['dimension']:,} "
        f"dimensions; k = {entry['k']}",
        title_justify="left",
    )
    table.add_column("images")
    table.add_column("n", justify="right")
    for title in MEASURES.values():
        table.add_column(title, justify="right")
    for name, numbers in sets.items():
        values = [numbers.get(measure, {}).get("value") for measure in MEASURES]
        table.add_row(name, f"{numbers['n']:,}", *("" if v is None else f"{v:.3g}" for v in values))
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    found = entry.get("detection", ())
    if not found:
        return
    groups = list(dict.fromkeys(x["group"] for x in found))
    table = Table(title="AUROC of log LDS: test images against", title_justify="left")
    for title in ("σ / mean norm", "norm from", *groups):
        table.add_column(title, justify="right")
    for scale, centred in dict.fromkeys((x["scale"], x["centred"]) for x in found):
        values = [x["auroc"]["value"] for x in found if (x["scale"], x["centred"]) == (scale, centred)]
        table.add_row(f"{scale:g}", "mean" if centred else "origin", *(f"{v:.3f}" for v in values))
    console.print(table)


def _selection(entry: Mapping[str, Any]) -> str:
    """What `select` kept, and why."""
    kept = f"kept {entry['rows_out']:,} of {entry['rows_in']:,} candidates"
    if entry["which"] == "none":
        return f"{kept}: select.which is none, so that there is no A"
    if entry["which"] == "random":
        rules = " and ".join(entry["rules"])
        return f"{kept}, drawn at random: as many as {rules} keep{'' if len(entry['rules']) > 1 else 's'}, no threshold"
    return (
        f"{kept}: LDS ≥ {entry['threshold_tau']:.4g} (log {entry['threshold_log_lds']:.3f}, by "
        f"{entry['binding_rule']}); the paper's tau is {entry['paper_tau']}"
    )


def place_of(location: Location) -> str:
    """Where a user finds it: a local path, or the whole address."""
    return location.path if location.is_local else without_password(location.uri)


def print_plan(config: Config, run: RunDir, names: list[str]) -> None:
    """The plan of `--dry-run`: stages, rows where known, resources, what is skipped.

    Raises:
        InputError: the source is there, but these settings cannot be run on it.
    """
    images: tuple[int, int] | None = None
    wrong: LdsaugError | None = None
    steps = plan_steps(config, run, names)
    if any(s.stage == "prepare" and s.fingerprint is not None and s.state != "complete" for s in steps):
        try:
            images = _planned_images(config)
        except LdsaugError as e:
            wrong = e
    table = Table(title=f"plan for {place_of(run.root)}", title_justify="left")
    for column in ("stage", "what", "rows", "workers ask for", "state"):
        table.add_column(column, overflow="fold")
    for step in steps:
        state = {"complete": "skip", "continue": "continue", "run": "run", "waiting": "run"}[step.state]
        table.add_row(
            step.stage,
            STAGES[step.stage].does,
            _known_rows(config, run, step.stage, images),
            _asked(config, step.stage),
            f"{state}: {step.why}",
        )
    Console(width=None if Console().is_terminal else 150).print(table)
    n = _training_latents(config, run, images)
    if n and any(s.stage == "score" and s.state != "complete" for s in steps):
        from ldsaug_ray.lds import candidates
        from ldsaug_ray.stages._index import choice

        candidates(n, config.score.alphas, 0, 1, config.seed, config.score.block_shape)  # too few latents for blocks?
        d = _latent_dim(config, run)
        if d is None:
            print("score: what it will take is known after train, which tells the latents' dimension")
        else:
            print(f"score: {choice(config, n, d).sentence}")
    if wrong is not None:
        raise wrong


def print_sample_plan(config: Config, out: RunDir, model: str, state: str) -> None:
    """The plan of `ldsaug sample --dry-run`."""
    table = Table(title=f"plan for {place_of(out.root)}", title_justify="left")
    for column in ("command", "what", "rows", "workers ask for", "state"):
        table.add_column(column, overflow="fold")
    what = f"{COMMANDS['sample'].does}: {model}, prior {config.sample.prior}, as {config.sample.format}"
    table.add_row(
        "sample",
        what,
        f"{config.sample.n:,} images",
        _asked(config, "sample"),
        {"complete": "skip: already complete", "continue": "continue: was interrupted", "run": "run"}[state],
    )
    Console(width=None if Console().is_terminal else 150).print(table)


def _training_latents(config: Config, run: RunDir, images: tuple[int, int] | None) -> int | None:
    """How many there will be, where that can be known."""
    prepared = run.entry("prepare")
    if prepared is not None:
        return int(prepared["train_images"])
    if isinstance(config.data.train, int):
        return config.data.train
    return images[1] - config.data.test if images and isinstance(config.data.test, int) else None


def _latent_dim(config: Config, run: RunDir) -> int | None:
    """The latents' dimension, where it can be known: a pretrained encoder tells it when it is taken."""
    taken = run.entry("train") or {}
    return config.vae.latent_dim or taken.get("latent_dim")


def _planned_images(config: Config) -> tuple[int, int]:
    """Images that the source lists, and those of the two splits."""
    from ldsaug_ray.domains.images import load_attributes, open_source, plan

    work = plan(open_source(config.data), config.data, config.seed, load_attributes(config.data))
    return work.n_listed, work.n_train + work.n_test


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
    return "1 page"


def _expected_selection(config: Config) -> str:
    select, n = config.select, config.score.n_candidates
    if select.which == "none":
        return "none"
    limits = [max(1, int(select.top_fraction * n + 0.5))] if select.top_fraction is not None else []
    limits += [min(n, select.top_count)] if select.top_count is not None else []
    if not limits:
        return "as many as pass"
    bounded = select.tau is not None or select.typical is not None
    return f"{'at most ' if bounded else 'about ' if select.stratify else ''}{min(limits):,} images"


def _asked(config: Config, stage: str) -> str:
    section = config.data if stage == "prepare" else getattr(config, stage)
    workers = getattr(section, "workers", None)
    if not isinstance(workers, Workers):
        return "the driver alone"
    gpus = "1 GPU where there is one" if workers.gpus == "auto" else f"{workers.gpus:g} GPU" if workers.gpus else ""
    memory = f"{workers.memory_gb:g} GB" if workers.memory_gb else ""
    each = ", ".join(x for x in (f"{workers.cpus:g} CPU", gpus, memory) if x)
    count = "as many as fit" if workers.count == "auto" else f"{workers.count}"
    return f"{count} × ({each})"
