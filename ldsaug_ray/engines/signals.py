"""SIGTERM and Ctrl-C during a training: kept back until it has saved where it is. A second one acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def kept_back(begun: Callable[[], bool]) -> Iterator[Callable[[], int]]:
    """Gives the number of the signal that came, or 0. It does what it would have done when the block ends, whatever the
    block raises.

    Args:
        begun: whether there is anything to save yet; before that a signal acts at once.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: 0
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    kept = {n: handler for n, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def act(number: int, frame: FrameType | None) -> None:
        handler = kept[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:  # the process ends
            signal.signal(number, handler)
            signal.raise_signal(number)

    def keep(number: int, frame: FrameType | None) -> None:
        at_once = bool(came) or not begun()
        came.append(number)
        if at_once:
            came.clear()
            act(number, frame)

    for number in kept:
        signal.signal(number, keep)
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:
            act(came[0], None)
