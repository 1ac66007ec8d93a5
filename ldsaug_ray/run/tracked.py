"""An MLflow run around the stages of a command, which a server that goes away does not end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console

from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.tracking import Status, Tracker


def nothing() -> None:
    """What is sent where nothing is tracked."""


@contextmanager
def tracked_run(
    config: Config, run: RunDir, console: Console, names: Sequence[str], tags: Mapping[str, str] | None = None
) -> Iterator[Callable[[], None]]:
    """An MLflow run around the stages; gives what sends the news. A server that goes away must not end the run.

    Raises:
        StorageError: the server does not answer at the start.
    """
    tracker = Tracker.start(config, run, tags)
    warned = False

    def send() -> None:
        nonlocal warned
        try:
            tracker.send(config, run, names)
        except Exception as e:
            if not warned:
                console.print(
                    f"MLflow does not take it ({first_line(e)}); the run goes on, what MLflow lacks is sent later",
                    highlight=False,
                )
            warned = True

    status: Status = "FAILED"
    try:
        yield send
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        status = "KILLED"
        raise
    finally:
        try:
            tracker.send(config, run, names)
            tracker.end(status)
        except Exception as e:
            console.print(
                f"MLflow could not be told that the run is {status} ({first_line(e)}); the same command again tells it",
                highlight=False,
            )
