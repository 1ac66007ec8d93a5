"""One line per running stage, with rate and remaining time: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_LOG_EVERY_SECONDS = 15.0
# Names of files and folders are no markup: of `runs[/x]` rich would make an error, of `a:cat:` a picture
AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f} {task.fields['unit']}/s" if rate else "", style="cyan")


class Bar:
    """What a stage moves. `done` counts work of this attempt and what an earlier one finished."""

    def __init__(self, name: str, total: int, unit: str, done: int, console: Console):
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self._start_done, self._started = done, time.monotonic()
        self._last_line = self._started
        self._note = ""
        self._console = console
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description:<9}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                _Rate(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=console,
            )
            self._task = self._live.add_task(name, total=total, completed=done, unit=unit, note="")

    def advance(self, n: int, note: str = "") -> None:
        """Count `n` more rows as done."""
        self.set(self.done + n, note)

    def set(self, done: int, note: str = "") -> None:
        """Say how many rows are done; `note` is a short remark such as the loss."""
        self.done, self._note = done, note or self._note
        if self._live is not None:
            self._live.update(self._task, completed=done, note=self._note)
        elif done < self.total and time.monotonic() - self._last_line > _LOG_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def begin_at(self, done: int, ago: float = 0.0) -> None:
        """Count the rate from `ago` seconds before now: what came before was another attempt's, or waiting."""
        self._start_done, self._started = done, time.monotonic() - ago
        self.set(done)

    def line(self) -> str:
        """Progress as text: name, share, counts, rate, remaining time."""
        seconds = time.monotonic() - self._started
        rate = (self.done - self._start_done) / seconds if seconds > 0 else 0.0
        left = f", {_duration((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        share = self.done / self.total if self.total else 1.0
        note = f"  {self._note}" if self._note else ""
        return f"{self.name:<9} {share:4.0%}  {self.done:,}/{self.total:,} {self.unit}, {rate:,.0f}/s{left}{note}"


@contextmanager
def bar(console: Console, name: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show the progress of one stage while the block runs, and one line when it has succeeded."""
    shown = Bar(name, total, unit, done, console)
    if shown._live is not None:
        with shown._live:
            yield shown
    else:
        console.print(
            f"{name:<9} starting: {total:,} {unit}{f', {done:,} of them done' if done else ''}", highlight=False
        )
        yield shown
        console.print(shown.line(), highlight=False, soft_wrap=True)


@contextmanager
def repeated(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call `look` again and again, in a thread of its own, while the block runs."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(seconds):
            look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def make_console() -> Console:
    """Console for messages to people: standard error, so that standard output stays for results."""
    return Console(file=sys.stderr, soft_wrap=True, **AS_IT_IS)


def result_console(width: int) -> Console:
    """Console for tables on standard output, `width` columns wide where that is no terminal."""
    return Console(width=None if Console().is_terminal else width, **AS_IT_IS)


def print_table(
    title: str | None, head: Sequence[str], rows: Iterable[Sequence[str]], width: int, align: str = "lr"
) -> None:
    """Print a table as `result_console`; align: l(eft), r(ight) or f(olded) for each column, the last goes on."""
    table = Table(title=title, title_justify="left")
    for name, how in zip(head, align.ljust(len(head), align[-1]), strict=True):
        table.add_column(name, justify="right" if how == "r" else "left", overflow="fold" if how == "f" else "ellipsis")
    for row in rows:
        table.add_row(*row)
    result_console(width).print(table)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
