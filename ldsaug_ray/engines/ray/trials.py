"""Trials on Ray Tune. What they are, which comes next, and what is kept of them, is the search's; of Tune's own state
nothing is needed again. Imported where a search runs: Tune takes a second.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ldsaug_ray.engines.base import Points, Steps, Trials
from ldsaug_ray.engines.ray.session import quieten_ray
from ldsaug_ray.engines.signals import kept_back
from ldsaug_ray.engines.threads import limit_threads
from ldsaug_ray.run.progress import repeated

LOOK_SECONDS = 0.5
STOP_SECONDS = 60.0  # that a trial which has saved waits for its end
OF_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a banner, however silent it shall be
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths are the user's
}


def run_trials(trials: Trials, verbose: bool, search: Any) -> None:
    """As of `Engine.trials`. `search`: a monitor, which trainings of trials look at."""
    # A trial's stages ask for their own CPUs, so that it takes none itself. But Tune wants something: a byte
    resources: dict[str, float] = {"CPU": 0, "memory": 1} if trials.stages else {"CPU": 1}
    # what a trial computes itself, while no stage of its own has the CPUs that Ray counts
    threads = max(1, (os.cpu_count() or 1) // trials.concurrent) if trials.stages else None
    given = {
        "make": trials.make,
        "args": tuple(trials.args),
        "folder": os.getcwd(),
        "threads": threads,
        "verbose": verbose,
    }
    with tempfile.TemporaryDirectory(prefix="ldsaug-tune-") as folder, _as_tune_is_told(), _saved_first(search):
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_Trial, **given), resources),
            tune_config=tune.TuneConfig(
                search_alg=_Next(trials.points),
                scheduler=_GoesOn(trials.points),
                num_samples=-1,
                max_concurrent_trials=trials.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                callbacks=[_Ends(trials.points)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # the points of crashed trials are given again
                verbose=0,
            ),
        ).fit()


@contextmanager
def _as_tune_is_told() -> Iterator[None]:
    """Tune's variables, where the user has not set them; not for a Tune of the user's own in this process."""
    new = OF_TUNE.keys() - os.environ.keys()
    os.environ.update({name: OF_TUNE[name] for name in new})
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _saved_first(search: Any) -> Iterator[None]:
    """A signal acts in the block once trainings of trials, which are told to stop, have saved."""
    at_work = 0

    def look() -> None:
        nonlocal at_work
        with suppress(ray.exceptions.RayError):
            if came():
                ray.get(search.stop.remote(), timeout=10)
            at_work = ray.get(search.count.remote(0), timeout=10)
        if came() and not at_work:
            os.kill(os.getpid(), came())  # a second one acts at once

    with kept_back(lambda: at_work > 0) as came, repeated(LOOK_SECONDS, look):
        yield


class _Trial(tune.Trainable):
    """A trial, evaluation by evaluation. An actor serves many; only the settings change."""

    def setup(
        self,
        config: dict[str, Any],
        make: Callable[..., Callable[[Mapping[str, Any]], Steps]] | None = None,
        args: Sequence[Any] = (),
        folder: str = "",
        threads: int | None = None,
        verbose: bool = False,
    ) -> None:
        """Called once by Tune."""
        assert make is not None
        if threads is not None:
            limit_threads(threads)
        with suppress(OSError):  # another machine may not have it
            os.chdir(folder)
        quieten_ray(verbose)
        self._make = make(*args)
        self._steps: Steps | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to another trial."""
        self.cleanup()
        self._steps = self._make(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Go on to the next evaluation."""
        assert self._steps is not None
        try:
            found = self._steps.step()
        except SystemExit:  # it was told to stop, and has saved: the driver, which waits for that, ends it
            threading.Event().wait(STOP_SECONDS)
            raise
        return {"done": found["over"], "found": json.dumps(found)}  # in one piece: Tune would flatten it

    def cleanup(self) -> None:
        """Called by Tune at the end, and where a trial was stopped on its way."""
        if self._steps is not None:
            self._steps.close()

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


class _Next(_OfTheDriver, Searcher):
    """The points as Tune wants them."""

    def __init__(self, points: Points):
        super().__init__()
        self._points = points

    def suggest(self, trial_id: str) -> Any:
        """The next trial; None: none as long as no trial ends; FINISHED: there is none."""
        asked = self._points.next(trial_id)
        if asked is None:
            return Searcher.FINISHED if self._points.over else None
        return dict(asked)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """`_Ends` says how it ended."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing; but Tune moves the file."""
        open(checkpoint_path, "wb").close()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


class _GoesOn(_OfTheDriver, FIFOScheduler):
    """Tells of each evaluation but the last, of which Tune asks no scheduler, and stops what is not to go on."""

    def __init__(self, points: Points):
        super().__init__()
        self._points = points

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune."""
        goes_on = self._points.evaluated(trial.trial_id, json.loads(result["found"]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class _Ends(_OfTheDriver, tune.Callback):
    """Tells of last evaluations, and of trials that end."""

    def __init__(self, points: Points):
        self._points = points

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Called by Tune after each."""
        found = json.loads(result["found"])
        if found["over"]:
            self._points.evaluated(trial.trial_id, found)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It is over, or was stopped by the scheduler."""
        self._points.end(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its process died, or what it ran failed."""
        text: list[str] = []
        with suppress(OSError, TypeError):  # not trial.get_error(): that reads a copy which is not there yet
            text = Path(trial.error_file).read_text().strip().splitlines()
        self._points.end(trial.trial_id, crashed=text[-1] if text else "its process died")
