"""Actors on the driver's node that processes elsewhere leave news with. What an actor's module imports it imports: here
next to nothing, so that they start at once and stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

POLL_SECONDS = 1.0


def beside_driver(actor: type) -> Any:
    """An actor without CPUs, for news, on the driver's own node: it dies with no other one."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(actor).options(scheduling_strategy=here).remote()


class Monitor:
    """A place where trainings of a search's trials are told to stop, and where the driver sees how many are at work."""

    def __init__(self) -> None:
        self.ends = False
        self.at_work = 0

    def count(self, more: int) -> int:
        """So many trainings more that should save before they end; gives how many these are."""
        self.at_work += more
        return self.at_work

    def stop(self) -> None:
        """Ask the workers to save and end."""
        self.ends = True

    def stopping(self) -> bool:
        """Whether they are asked to."""
        return self.ends


class Board:
    """A place where trials leave their progress lines for the driver."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Leave a line."""
        self._lines = [*self._lines[-99:], line]

    def take(self) -> list[str]:
        """Lines that were left since the last time."""
        lines, self._lines = self._lines, []
        return lines


class _Say:
    """Leaves lines on a board, from any process."""

    def __init__(self, board: Any):
        self._board = board

    def __call__(self, line: str) -> None:
        self._board.say.remote(line)


@contextmanager
def lines(console: Console) -> Iterator[Callable[[str], None]]:
    from contextlib import suppress

    import ray

    from ldsaug_ray.run.progress import repeated

    board = beside_driver(Board)

    def look() -> None:
        with suppress(ray.exceptions.RayError):  # progress is a courtesy
            for line in ray.get(board.take.remote(), timeout=10):
                console.print(line, highlight=False, soft_wrap=True, style="dim")

    try:
        with repeated(POLL_SECONDS, look):
            yield _Say(board)
    finally:
        look()
