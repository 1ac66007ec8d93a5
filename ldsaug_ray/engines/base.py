"""What a stage may ask for: workers for units, arrays shared with them, shards held, a training, trials of a search.

An engine says where these things happen and how they talk to each other. What is computed, and every file that is left
behind, is the stage's, so that the engine changes no result.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import pyarrow as pa
from rich.console import Console

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, Workers
from ldsaug_ray.engines.resources import Node, Pool
from ldsaug_ray.errors import ResourceError, is_out_of_memory
from ldsaug_ray.run.directory import UnitResult, mark

Worker = Callable[[int, pa.Table], UnitResult]
Places = Callable[[int], tuple[Location, int]]  # unit -> the run directory that it belongs to, and its number there
Count = Callable[..., None]  # rows, seconds, cpu_seconds: so much more was done
Asked = Literal["save", "stop"]  # of a training: a checkpoint now; that, and no further step


@contextmanager
def clear_memory_errors(stage: str) -> Iterator[None]:
    """Turn a lack of memory in the block into words. Other settings may mend it, but it is none of the data's."""
    try:
        yield
    except Exception as e:
        if not is_out_of_memory(e):
            raise
        why = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise ResourceError(f"{stage}: out of memory ({why}); lower {stage}.batch_size, or its tiles or parts") from e


@dataclass(frozen=True)
class UnitWork:
    """Units of one stage that are to be done.

    Attributes:
        tables: unit number -> its table; at least one row each.
        make: builds a worker from `args`, in its process.
        args: for `make`; what `Engine.share` gave, and lists of it, are replaced by what was shared.
        places: where each unit leaves its marker, and under which number.
        read: turns a unit's table into the table that the worker gets.
    """

    stage: str
    tables: Mapping[int, pa.Table]
    pool: Pool
    make: Callable[..., Worker]
    args: Sequence[Any]
    places: Places
    read: Callable[[pa.Table], pa.Table] | None = None


class MarkedWorker:
    """A stage's worker, and what is the same around each unit: its time, its marker."""

    def __init__(self, worker: Worker, places: Places, stage: str, count: Count):
        self._worker, self._places, self._stage, self._count = worker, places, stage, count

    def __call__(self, unit: int, table: pa.Table) -> tuple[UnitResult, float]:
        """Do a unit; gives its result and the seconds it took."""
        started, cpu = time.monotonic(), time.process_time()
        with clear_memory_errors(self._stage):
            result = self._worker(unit, table)
        spent = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
        result = replace(result, extra={**result.extra, **{k: round(v, 4) for k, v in spent.items()}})
        self._count(rows=result.counts.rows_in, **spent)
        run, number = self._places(unit)
        mark(run, self._stage, replace(result, unit=number))
        return result, time.monotonic() - started


class Held(Protocol):
    """Objects that live where the engine put them."""

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """What each one's method gives, in order."""


class Rank(Protocol):
    """What one rank of a training sees of the engine.

    Attributes:
        number: of this rank.
        world: ranks.
        device: torch's name of the device to train on.
        count: tells the cluster's monitoring.
    """

    number: int
    world: int
    device: str
    count: Count

    def tell(self, step: int, note: str) -> None:
        """Progress for who watches."""

    def meet(self) -> None:
        """Wait for the other ranks; each calls it equally often."""

    def agree(self, value: int | None) -> int | None:
        """The first rank's value; all ranks wait for it."""

    def asked(self) -> Asked | None:
        """What all ranks are asked for, if anything; each calls it equally often."""

    def stream(
        self,
        make: Callable[..., Callable[[pa.Table], Iterator[pa.Table]]],
        arguments: Sequence[Any],
        tasks: Sequence[Mapping[str, int]],
    ) -> Iterator[pa.Table]:
        """The tables that one object of `make` gives for the tasks, in order; it may be ahead of who takes them."""


@dataclass(frozen=True)
class Training:
    """A training that is to be done.

    Attributes:
        work: a rank's whole life.
        world: ranks.
        pool: what each rank gets.
        max_failures: deaths of ranks to survive; each starts all of them again.
    """

    stage: str
    work: Callable[[Rank], None]
    world: int
    pool: Pool
    max_failures: int


class Steps(Protocol):
    """A trial on its way."""

    def step(self) -> Mapping[str, Any]:
        """Go on to the next evaluation; `over` says that it was the last."""

    def close(self) -> None:
        """Leave it as it is."""


class Points(Protocol):
    """Where a search's trials come from, and who is told of them: in the driver's process."""

    def next(self, trial: str) -> Mapping[str, Any] | None:
        """What the trial of that name is to be; none where there is nothing to start, at least until a trial ends."""

    @property
    def over(self) -> bool:
        """Where `next` gave nothing: whether there is nothing to come either."""

    def evaluated(self, trial: str, found: Mapping[str, Any]) -> bool:
        """An evaluation of a running trial; whether it goes on."""

    def end(self, trial: str, *, crashed: str = "") -> None:
        """A trial is over, or crashed."""


@dataclass(frozen=True)
class Trials:
    """Trials that are to be done.

    Attributes:
        make: builds a worker's function from `args`, in its process: what a trial is to be -> the trial on its way.
        args: for `make`.
        stages: whether trials run stages, which ask for workers of their own. Those that do not are done in one piece,
            whatever is said of an evaluation on their way.
    """

    points: Points
    make: Callable[..., Callable[[Mapping[str, Any]], Steps]]
    args: Sequence[Any]
    concurrent: int
    stages: bool


class Engine(ABC):
    """A place where work is done; a context, which is entered before anything is asked for.

    Attributes:
        config: of the command.
        verbose: show the engine's own messages.
    """

    def __init__(self, config: Config, verbose: bool = False):
        self.config, self.verbose = config, verbose

    @abstractmethod
    def __enter__(self) -> Engine: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def check_place(self, name: str, uri: str) -> None:
        """Whoever works must see the folder that the setting `name` gives.

        Raises:
            InputError: they do not.
        """

    @abstractmethod
    def nodes(self) -> list[Node]:
        """What each machine has."""

    @abstractmethod
    def pool(self, workers: Workers, stage: str, console: Console, *, limit: int | None = None) -> Pool:
        """Workers of a stage, once there is what is asked for.

        Raises:
            ResourceError: there is not.
        """

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Something large that workers read: stands for it among the arguments of workers."""

    @abstractmethod
    def answers(self, work: UnitWork) -> Generator[tuple[UnitResult, float]]:
        """Do the units, in any order: each one's result and the seconds it took.

        Raises:
            LdsaugError: a worker did.
            ResourceError: whoever works on a certain unit dies.
        """

    @abstractmethod
    def each(self, function: Callable[..., Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        """`function(shared, item)` of each item, in order, wherever there is a CPU; items may be shared ones."""

    @abstractmethod
    def hold(
        self, make: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], pool: Pool, threads: int
    ) -> AbstractContextManager[Held]:
        """Objects of `make`, one for each of the arguments, spread over the machines; each computes with `threads`."""

    def expect(self, stages: Collection[str]) -> None:  # noqa: B027
        """These stages will be done: what takes long to start may start."""

    @abstractmethod
    def train(self, training: Training, shown: Callable[[int, str], None]) -> None:
        """Train to the end; `shown` is told the step and a note.

        SIGTERM and Ctrl-C do what they do once the ranks, asked to stop, have saved.

        Raises:
            LdsaugError: a rank did.
        """

    @abstractmethod
    def trials(self, trials: Trials) -> None:
        """Every trial that the points give, until they give none."""

    @abstractmethod
    def lines(self, console: Console) -> AbstractContextManager[Callable[[str], None]]:
        """Gives what trials, wherever they are, call to print a line on this console."""
