"""Time in a training: how fast its steps go, and after which of them its ranks look up from the work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from ldsaug_ray.stages.shared.batches import StepBatch

WARM_STEPS = 20  # not counted in the rate: caches fill, kernels are chosen
LOOK_SECONDS = 1.0


class Clock:
    """How fast the steps go once warm, and what share of that time they wait for data."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self.waited = 0.0
        self._paused = 0.0

    def timed(self, batches: Iterable[StepBatch]) -> Iterator[StepBatch]:
        """The batches, with the time taken of waiting for one and of what is done with it."""
        started = time.perf_counter()
        for n, batch in enumerate(batches):
            ready, self._paused = time.perf_counter(), 0.0
            yield batch
            if n >= WARM_STEPS:
                self.steps += 1
                self.waited += ready - started
                self.seconds += time.perf_counter() - started - self._paused
            started = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not training."""
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def facts(self, batch_size: int) -> Mapping[str, float]:
        """For the manifest; nothing where no step was warm."""
        if not self.steps:
            return {}
        return {
            "images_per_second": round(self.steps * batch_size / self.seconds, 2),
            "waiting_for_data": round(self.waited / self.seconds, 4),
        }


def steps_between_looks(before: int, seconds: float) -> int:
    """How many steps until the next look, so that looks are LOOK_SECONDS apart, when `before` steps took `seconds`.

    At most twice as many: a first look comes soon.
    """
    return max(1, min(2 * before, int(before * LOOK_SECONDS / max(seconds, 1e-9))))
