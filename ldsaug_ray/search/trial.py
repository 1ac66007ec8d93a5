"""One trial of a search, wherever the engine runs it: A by scores that are there already, its measures, and, where the
objectives need it, fine-tuning and evaluation in a run directory of its own.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines.base import Engine
from ldsaug_ray.errors import ImpossibleError, InputError, LdsaugError, StorageError
from ldsaug_ray.lds import Candidates, Plan
from ldsaug_ray.metrics import Evaluated
from ldsaug_ray.run.directory import Counts, RunDir
from ldsaug_ray.run.latents import latents_on_disk
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import AS_IT_IS
from ldsaug_ray.search.judge import Judge
from ldsaug_ray.search.objectives import measures_of_run, objective_values
from ldsaug_ray.search.plan import Search
from ldsaug_ray.search.proxies import Prepared
from ldsaug_ray.search.space import Point
from ldsaug_ray.search.trials import key_of
from ldsaug_ray.stages import finetune
from ldsaug_ray.stages.select import choose
from ldsaug_ray.stages.shared.adopt import adopt
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import plan_steps, run_stages

OF_A = ("prepare", "train", "encode", "score", "select", "decode")  # stages that an evaluation needs
_REGIME = ["parent_share", "effective_neighbours"]
_COLUMNS = ["candidate", "log_lds", "log_lds_excluding_parents", *_REGIME]
KEPT_BYTES, ROW_BYTES = 640 * 2**20, 40  # of the scores that a worker keeps in memory, and of one
PLANNED, KEPT_PLANNED = 2**20, 2**22  # candidates planned at a time; and kept, at most

Measures = dict[str, float | None]


class Tables:
    """Scores and plans, kept as far as they are few: a worker's trials look at the same ones again and again."""

    def __init__(self) -> None:
        self._kept: dict[str, list[pa.Table]] = {}
        self._left = KEPT_BYTES
        self._plans: dict[str, tuple[Plan, Candidates | None]] = {}

    def of(self, scored: RunDir) -> Iterable[pa.Table]:
        """The columns that trials look at, file by file."""
        size = ROW_BYTES * scored.require("score", "rows_out")
        if scored.root.path not in self._kept and size <= self._left:
            self._kept[scored.root.path] = list(_rows(scored.folder("scores")))
            self._left -= size
        return self._kept.get(scored.root.path) or _rows(scored.folder("scores"))

    def chosen(self, ids: np.ndarray, train: np.ndarray, config: Config) -> tuple[Plan, Candidates]:
        """The plan, which no bandwidth changes, and parents and alpha of some candidates, ascending."""
        n, key = config.score.n_candidates, f"{config.seed} {config.score.model_dump_json(exclude={'sigma'})}"
        if key not in self._plans:
            plan = Plan.of(train, config.score, config.seed)
            self._plans[key] = plan, plan.candidates(0, n) if n <= KEPT_PLANNED else None
        plan, every = self._plans[key]
        if every is not None:
            return plan, Candidates(ids, every.i[ids], every.j[ids], every.alpha[ids])
        parts = []
        for start in range(0, n, PLANNED):
            stop = min(start + PLANNED, n)
            inside = ids[slice(*np.searchsorted(ids, [start, stop]))] - start
            if len(inside):
                some = plan.candidates(start, stop)
                parts.append([some.id[inside], some.i[inside], some.j[inside], some.alpha[inside]])
        return plan, Candidates(*map(np.concatenate, zip(*parts, strict=True)))


def _rows(folder: Location, columns: Sequence[str] = _COLUMNS) -> Iterator[pa.Table]:
    for file in folder.files(".parquet"):
        yield file.read_table([*columns])


@dataclass(frozen=True, eq=False)
class Shared:
    """What all trials have in common.

    Attributes:
        donors: run directories that have the stages to take over.
        scorings: key of what changes the scores -> the run directory that has them.
        real: the real latents, measured.
        judge: of A's images; None: no objective looks at them.
        say: takes progress lines.
        tables: of the scores, for each worker its own.
    """

    search: Search
    donors: Sequence[Location]
    scorings: Mapping[str, Location]
    real: Prepared
    judge: Judge | None
    engine: Engine
    say: Callable[[str], None]
    tables: Tables = field(default_factory=Tables)


class TrialMaker:
    """Makes trials, one after another; what they share is kept between them."""

    def __init__(self, shared: Shared):
        self._shared = shared

    def __call__(self, asked: Mapping[str, Any]) -> Evaluations:
        return Evaluations(self._shared, asked["point"], asked["number"])


class Evaluations:
    """A trial on its way, evaluation by evaluation."""

    def __init__(self, shared: Shared, point: Point, number: int):
        self._shared = shared
        self._work = _evaluations(shared, point, Console(file=_Said(shared.say, number), width=120, **AS_IT_IS))
        self._started = time.monotonic()

    def step(self) -> dict[str, Any]:
        """Go on to the next evaluation: `step` of fine-tuning, `measures`, `value` of the first objective, infinite
        where there is none, `over`, `failed`, why it cannot work, `error`, kind and text of what ends the search."""
        step, over, failed, value = 0, True, "", math.inf
        measures: Measures = {}
        error: tuple[str, str] | None = None
        try:
            step, measures, over = next(self._work)
        except ImpossibleError as e:
            failed = str(e)
        except LdsaugError as e:  # no matter of this trial's settings: as data, since it has a way to go
            error = (type(e).__name__, str(e))
        with suppress(InputError):  # a measure without a value: the others are kept, for other objectives
            value = objective_values(self._shared.search.config.tune.objectives, measures)[0]
        seconds = round(time.monotonic() - self._started, 3)
        return {
            "step": step,
            "measures": measures,
            "value": value,
            "over": over,
            "error": error,
            "failed": failed,
            "seconds": seconds,
        }

    def close(self) -> None:
        """Leave the run directory to others."""
        self._work.close()


def _evaluations(shared: Shared, point: Point, console: Console) -> Generator[tuple[int, Measures, bool]]:
    """(step, measures, whether these are the last) of each evaluation of a trial.

    Raises:
        ImpossibleError: its settings cannot work.
    """
    search = shared.search
    config = search.trial_config(point)
    scored = RunDir(shared.scorings[key_of(search.scoring(point))])
    if not search.trains:

        def read(columns: Sequence[str]) -> Iterable[pa.Table]:
            at_hand = set(columns) <= set(_COLUMNS)
            return shared.tables.of(scored) if at_hand else _rows(scored.folder("scores"), columns)

        latents = partial(latents_on_disk, RunDir(shared.donors[0]), "train")
        ids = choose(config, scored, read, latents).ids
        yield 0, _measures_of_a(shared, scored, shared.tables.of(scored), ids, config), True
        return
    with ExitStack() as held:
        run = open_run_dir(config, held=held)
        job = Job(config, run, console, shared.engine, alone=True)
        adopt(job, OF_A, [*map(RunDir, shared.donors), scored, *_others(search)])
        for planned in plan_steps(config, run, OF_A[:4]):
            if planned.state != "complete":  # by no fault of the trial's settings
                raise StorageError(f"{run.root.uri}: {planned.stage} could not be taken over ({planned.why})")
        run_stages(job, OF_A)
        of_a = _measures_of_a(shared, scored, _rows(run.folder("selected")), _decoded(run), config)
        (left,) = plan_steps(config, run, ["finetune"])
        for rung in search.rungs(config.finetune.steps) if left.state != "complete" else ():
            step, measures = _at_rung(job, rung, str(left.fingerprint))
            yield step, {**of_a, **measures}, False
        run_stages(job, ["finetune", "evaluate"])
        yield config.finetune.steps, {**of_a, **_measures(run)}, True


def _others(search: Search) -> list[RunDir]:
    """Run directories of the trials so far: one of them may have selected the same A."""
    folder = Location.of(search.root) / "trials"
    return [RunDir(folder / name) for name in folder.names()]


def _decoded(run: RunDir) -> np.ndarray:
    """Candidates that became A, ascending: of those that were selected perhaps the sharpest alone."""
    files = [(run.root / file).read_table(["candidate"]) for file, _ in run.finished_parts("decode")]
    return np.sort(np.concatenate([np.empty(0, np.int64), *(table["candidate"].to_numpy() for table in files)]))


def _at_rung(job: Job, rung: int, of: str) -> tuple[int, Measures]:
    """Fine-tune so far and evaluate what there is, in a run directory below the trial's: a run of so many steps."""
    tuned = job.config.finetune.model_copy(update={"steps": rung})
    config = job.config.model_copy(update={"finetune": tuned})
    run = RunDir(job.run.folder(f"rungs/{rung:06d}"))
    run.create()
    inner = replace(job, run=run, config=config)
    known = run.entry("finetune")
    if known is None or known["of"] != of:
        finetune.check(job)
        job.run.begin("finetune", of)
        checkpoint = finetune.run_to(job, rung)
        adopt(inner, OF_A, [job.run])
        identity = str(plan_steps(config, run, ["finetune"])[0].fingerprint)
        run.begin("finetune", identity)
        checkpoint.take_weights(run.folder("finetune"))
        facts = checkpoint.record["facts"]
        taken = {name: facts[name] for name in ("steps", "resumed_from_step")}
        run.finish("finetune", identity, Counts(), facts["digest"], 0.0, 0, of=of, **taken)
    run_stages(inner, ["evaluate"])
    return int(run.require("finetune", "steps")), _measures(run)


def _measures(run: RunDir) -> Measures:
    return measures_of_run(Evaluated.read(run.root / "evaluate/metrics.json"))


def _measures_of_a(
    shared: Shared, scored: RunDir, tables: Iterable[pa.Table], ids: np.ndarray, config: Config
) -> Measures:
    """Measures of A without training, and the regime that it was selected in; rows of the tables with these `ids`."""
    sigma = scored.require("score", "sigma")
    if not len(ids):
        return {"kept": 0.0, "sigma": sigma}
    inside = np.zeros(config.score.n_candidates, bool)  # asked of each candidate, faster than a search among the ids
    inside[ids] = True
    regime = pa.concat_tables(
        [part.select(_REGIME).filter(pa.array(inside[part["candidate"].to_numpy()])) for part in tables]
    )
    plan, chosen = shared.tables.chosen(ids, shared.real.train, config)
    names = shared.search.measures_of_a
    images = None if shared.judge is None else partial(shared.judge.sample, config)
    return {
        **shared.real.measures_of(chosen, config.score.interpolation, names, plan.noise, images),
        "kept": float(len(ids)),
        "sigma": sigma,
        "parent_share": float(np.mean(regime["parent_share"].to_numpy())),
        "effective_neighbours": float(np.median(regime["effective_neighbours"].to_numpy())),
    }


class _Said(io.StringIO):
    """Passes whole lines on."""

    def __init__(self, say: Callable[[str], None], number: int):
        super().__init__()
        self._say, self._number, self._rest = say, number, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.rstrip, lines)):
            self._say(f"trial {self._number}: {line}")
        return len(text)
