"""What `run`, `experiment` and `tune` begin with: an engine, and the run directory, kept from other drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ldsaug_ray.config import Config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.stages.shared.job import Job


@contextmanager
def opened(config: Config, *, overwrite: bool, verbose: bool) -> Iterator[Job]:
    """The job, while no other driver can be at work in its run directory; its engine is still to be entered.

    Raises:
        InputError, StorageError: as `open_run_dir`, or the engine's processes would not see the run directory.
    """
    engine, console = engine_of(config, verbose=verbose), make_console()
    engine.check_place("run_dir", config.run_dir)
    with ExitStack() as held:
        yield Job(config, open_run_dir(config, overwrite=overwrite, held=held), console, engine, alone=True)
