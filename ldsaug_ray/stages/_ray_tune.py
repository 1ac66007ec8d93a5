"""Ray Tune around trials: which point is next comes from a sampler, what a trial does from `_trial`, what is kept of it
goes to `Trials`. Of Tune's own state nothing is needed again. Imported where a search runs: Tune takes a second.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ldsaug_ray.config import Tune
from ldsaug_ray.errors import InputError
from ldsaug_ray.search.objectives import objective_values
from ldsaug_ray.search.sampler import Sampler
from ldsaug_ray.search.space import Point
from ldsaug_ray.search.trials import Trial, key_of
from ldsaug_ray.stages._job import limit_threads
from ldsaug_ray.stages._trial import Shared, Work

NEVER = 2**31  # steps: a trial says itself when it is over


class Trials(Protocol):
    """Where a search keeps its trials."""

    def begin(self, point: Point) -> Trial:
        """A trial starts, or is tried again."""

    def told(self, key: str, found: Mapping[str, Any]) -> None:
        """An evaluation of a running trial."""

    def end(self, key: str, *, stopped: bool = False, crashed: str = "") -> Trial:
        """A trial is over; what it came to was told."""


def run_trials(
    shared: Shared, sampler: Sampler, trials: Trials, known: Sequence[Trial], concurrent: int, deadline: float | None
) -> None:
    """Every point that the sampler gives, until it gives none.

    Args:
        shared: what the trials have in common.
        sampler: gives the points.
        trials: is told what happens.
        known: trials of an earlier attempt.
        concurrent: at once.
        deadline: of time.monotonic(), after which no trial starts.
    """
    asked = shared.search.config.tune
    for name in ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_SIGINT_HANDLER"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a banner, however silent it shall be
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the user's
    points = _Points(sampler, trials, math.inf if deadline is None else deadline, asked.max_failures)
    # A trial's stages ask for their own CPUs, so that it takes none itself. But Tune wants something: a byte
    resources: dict[str, float] = {"CPU": 0, "memory": 1} if shared.search.trains else {"CPU": 1}
    with tempfile.TemporaryDirectory(prefix="ldsaug-tune-") as folder:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(LdsTrial, shared=shared, concurrent=concurrent), resources),
            tune_config=tune.TuneConfig(
                search_alg=points,
                scheduler=_scheduler(asked, known),
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                callbacks=[_Kept(points)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # `_Points` gives a crashed trial's point again
                verbose=0,
            ),
        ).fit()


def _scheduler(asked: Tune, known: Sequence[Trial]) -> TrialScheduler:
    """Successive halving, with the rungs that trials of an earlier attempt have reached; or none."""
    if asked.asha.grace_steps is None:
        return FIFOScheduler()
    scheduler = _Halving(
        time_attr="step",
        metric="objective",
        mode="min",
        max_t=NEVER,
        grace_period=asked.asha.grace_steps,
        reduction_factor=asked.asha.reduction_factor,
    )
    controller: Any = None  # which it does not ask
    for trial in known:
        as_tune_has_it: Any = SimpleNamespace(config={"point": trial.point})
        scheduler.on_trial_add(controller, as_tune_has_it)
        for step, measures in trial.curve:
            with suppress(InputError):  # of these objectives it has no value
                value = objective_values(asked.objectives, measures)[0]
                scheduler.on_trial_result(controller, as_tune_has_it, {"step": step, "objective": value})
    return scheduler


class _Halving(AsyncHyperBandScheduler):
    """Knows trials by their point: one that is tried again, or goes on with another attempt, is not judged once more,
    and by itself, at the rungs that it has passed.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune, as the others."""
        super().on_trial_add(tune_controller, _by_point(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether it goes on; without a value it does, and counts for no other."""
        if not math.isfinite(result["objective"]):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, _by_point(trial), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """It is over."""
        if math.isfinite(result.get("objective", math.inf)):
            super().on_trial_complete(tune_controller, _by_point(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """It is taken out."""
        super().on_trial_remove(tune_controller, _by_point(trial))


def _by_point(trial: Any) -> Any:
    return SimpleNamespace(trial_id=key_of(trial.config["point"]))


class LdsTrial(tune.Trainable):
    """A trial, evaluation by evaluation. An actor serves many; only the settings change."""

    def setup(self, config: dict[str, Any], shared: Shared | None = None, concurrent: int = 1) -> None:
        """Called once by Tune."""
        assert shared is not None
        if shared.search.trains:  # what it measures itself, while no stage of its own has the CPUs that Ray counts
            limit_threads(max(1, (os.cpu_count() or 1) // concurrent))
        self._shared = shared
        with suppress(OSError):  # another machine may not have it
            os.chdir(shared.folder)
        self._work: Work | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to another trial."""
        self.cleanup()
        self._work = Work(self._shared, new_config["point"], new_config["number"])
        return True

    def step(self) -> dict[str, Any]:
        """Go on to the next evaluation."""
        assert self._work is not None
        found = self._work.step()
        return {"objective": found["value"], "step": found["step"], "done": found["over"], "found": found}

    def cleanup(self) -> None:
        """Called by Tune at the end, and where a trial was stopped on its way."""
        if self._work is not None:
            self._work.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """What there is to keep is in the run directory."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Likewise."""


class _OfTheDriver:
    """Tune pickles what it is given, to restore a search that we never restore so: nothing goes into the pickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return (object, ())

    def __deepcopy__(self, memo: object) -> _OfTheDriver:
        return self


class _Points(_OfTheDriver, Searcher):
    """The sampler as Tune wants it, and the points of trials that crashed, again: Tune's own way of trying again counts
    a death twice, and gives up at once, where an actor dies on its way from one trial to the next."""

    def __init__(self, sampler: Sampler, trials: Trials, deadline: float, max_failures: int):
        super().__init__(metric="objective", mode="min")
        self._sampler, self._trials, self._deadline, self._max_failures = sampler, trials, deadline, max_failures
        self._again: list[Point] = []
        self._crashes: Counter[str] = Counter()
        self._running: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next point; None: none as long as no trial crashes; FINISHED: there is none, or no time."""
        while time.monotonic() < self._deadline:
            point = self._again.pop() if self._again else self._sampler.ask()
            if point is None:
                return None if self._running else Searcher.FINISHED
            trial = self._trials.begin(point)
            if trial.state == "running":
                self._running[trial_id] = trial.key
                return {"point": dict(point), "number": trial.number}
            self._sampler.tell(trial)  # these values are not possible together
        return Searcher.FINISHED

    def told(self, trial_id: str, found: Mapping[str, Any]) -> None:
        """An evaluation of a running trial."""
        self._trials.told(self._running[trial_id], found)

    def end(self, trial_id: str, **how: Any) -> None:
        """A trial is over, or crashed; Tune says so twice where its actor died between two trials."""
        if trial_id not in self._running:
            return
        trial = self._trials.end(self._running.pop(trial_id), **how)
        if trial.state == "crashed" and self._crashes[trial.key] < self._max_failures:
            self._crashes[trial.key] += 1
            self._again.append(trial.point)
        else:
            self._sampler.tell(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """`_Kept` says how it ended."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing; but Tune moves the file."""
        open(checkpoint_path, "wb").close()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


class _Kept(_OfTheDriver, tune.Callback):
    """Tells of trials as they go on and end."""

    def __init__(self, points: _Points):
        self._points = points

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """An evaluation."""
        self._points.told(trial.trial_id, result["found"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It is over, or was stopped by the scheduler."""
        self._points.end(trial.trial_id, stopped=not trial.last_result["found"]["over"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its process died, or what it ran failed."""
        text: list[str] = []
        with suppress(OSError, TypeError):  # not trial.get_error(): that reads a copy which is not there yet
            text = Path(trial.error_file).read_text().strip().splitlines()
        self._points.end(trial.trial_id, crashed=text[-1] if text else "its process died")
