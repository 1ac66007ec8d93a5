"""Signals that are kept back until a training has saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from ldsaug_ray.engines.signals import kept_back


class Ended(SystemExit):
    pass


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[int]]:
    """SIGTERM raises, as on the command line; the numbers that the handler got."""
    numbers: list[int] = []

    def handler(number: int, frame: object) -> None:
        numbers.append(number)
        raise Ended

    before = signal.signal(signal.SIGTERM, handler)
    yield numbers
    signal.signal(signal.SIGTERM, before)


def always() -> bool:
    return True


def block(*signals: int, begun: Callable[[], bool] = always, error: Exception | None = None) -> list[bool]:
    """Five steps, before which these signals come, 0 for none; whether one had come after each; then the error."""
    STEPS.clear()
    with kept_back(begun) as came:
        for number in (*signals, *[0] * 5)[:5]:
            if number:
                signal.raise_signal(number)
            STEPS.append(bool(came()))
        if error is not None:
            raise error
    return list(STEPS)


STEPS: list[bool] = []


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Ended), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_acts_when_the_block_ends(number, raised):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(raised):
        block(0, 0, number)
    assert STEPS == [False, False, True, True, True]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert block() == [False] * 5


def test_the_second_acts_at_once_and_only_it(seen):
    with pytest.raises(KeyboardInterrupt):
        block(signal.SIGTERM, signal.SIGINT)
    assert STEPS == [True]
    assert seen == []


def test_before_there_is_anything_to_save_it_acts_at_once(seen):
    with pytest.raises(Ended):
        block(0, signal.SIGTERM, begun=lambda: False)
    assert STEPS == [False]
    assert seen == [signal.SIGTERM]


def test_an_error_in_the_block_does_not_swallow_it():
    """An experiment would go on with its next arm."""
    error = ValueError("diverged")
    with pytest.raises(Ended) as caught:
        block(signal.SIGTERM, error=error)
    assert caught.value.__context__ is error
    with pytest.raises(ValueError, match="diverged"):
        block(error=error)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as after nohup
    try:
        with kept_back(always) as came:
            signal.raise_signal(signal.SIGINT)
            assert not came()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_kept_back(seen):
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with kept_back(always) as came:
            inside.append((signal.getsignal(signal.SIGTERM) is before, came()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(True, False)]
