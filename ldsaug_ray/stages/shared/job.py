"""What every stage gets: the settings, the run directory, a console, and the engine that does its work."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from ldsaug_ray.config import Config, Workers
from ldsaug_ray.domains import Domain, domain_of
from ldsaug_ray.engines.base import Engine
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.run.directory import RunDir


@dataclass(frozen=True)
class Job:
    """One invocation: a stage function reads from it and writes through it.

    alone: whether this process keeps other drivers out of the run directory.
    """

    config: Config
    run: RunDir
    console: Console
    engine: Engine
    alone: bool = False

    @property
    def domain(self) -> Domain:
        """Of the data."""
        return domain_of(self.config)

    def pool(self, workers: Workers, stage: str, *, limit: int | None = None) -> Pool:
        """Workers of a stage, no more than units of work (`limit`).

        Raises:
            ResourceError: there is not what is asked for.
        """
        return self.engine.pool(workers, stage, self.console, limit=limit)
