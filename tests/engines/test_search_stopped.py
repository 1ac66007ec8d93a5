"""A search that is told to stop: the signal acts once trainings of its trials have saved."""

from __future__ import annotations

import signal
import threading

import pytest
import ray

from ldsaug_ray.engines.ray.beside import Monitor, beside_driver
from ldsaug_ray.engines.ray.trials import LOOK_SECONDS, _saved_first

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


class Ended(Exception):
    pass


def end(number: int, frame: object) -> None:
    raise Ended(number)


def search_with_a_training(number: int) -> None:
    """It is told to stop while the training is at work, which then saves and ends."""
    search, never = beside_driver(Monitor), threading.Event()
    ray.get(search.count.remote(1))
    with _saved_first(search):
        never.wait(5 * LOOK_SECONDS)  # the driver has looked
        signal.raise_signal(number)
        while not ray.get(search.stopping.remote()):
            never.wait(0.05)
        assert ray.get(search.count.remote(-1)) == 0
        never.wait(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_signal_waits_for_trainings_that_are_at_work(number):
    before = signal.signal(number, end)
    try:
        with pytest.raises(Ended, match=str(int(number))):
            search_with_a_training(number)
    finally:
        signal.signal(number, before)
