"""Units of work by a crew of actors of our own, which stay warm from one stage to the next: to start a process and to
import what it computes with takes longer than a small stage's work. Trials of a search that start nothing of their own
are theirs, too.

An actor does one unit at a time and reads the next meanwhile. One that dies gives its unit back; another is started.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import ray

from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.engines.base import Points, Trials, UnitWork
from ldsaug_ray.engines.ray.unit_actor import UnitActor
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import ResourceError, error_named
from ldsaug_ray.run.directory import UnitResult

DEATHS = 10  # of actors at work on one unit, after which that unit is to blame
_DIED = (
    ray.exceptions.RayActorError,
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.WorkerCrashedError,
)
GROW_SECONDS = 2.0  # so often a pool that may grow looks for nodes that came


class _Member:
    """An actor of the crew, as the driver sees it."""

    def __init__(self, options: Mapping[str, Any], prepared: bool, after: Any = None):
        """prepared: it imports what most stages compute with before it is up, `after` something else; until then others
        do the units."""
        made: Any = ray.remote(**options)(UnitActor)
        self.actor: Any = made.remote()
        self.up, self.prepared = False, prepared
        # to what was asked last; none: it has nothing to do
        self.answer = self.actor.prepare.remote(after) if prepared else self.actor.here.remote()
        self.unit: int | None = None
        self.next: int | None = None  # is being read

    def die(self) -> None:
        ray.kill(self.actor)


class Crew:
    """Actors that do units, and are kept for the next stage that wants the same of each."""

    def __init__(self, reserves: bool = True) -> None:
        """reserves: CPUs. Not on a Ray where nothing else runs while the crew works: then others need not end it."""
        self._reserves = reserves
        self._members: list[_Member] = []
        self._each: tuple[float, float, int | None] | None = None
        self._options: dict[str, Any] = {}  # of new members

    def make_room(self) -> None:
        """Let others have what they reserve. Where that is nothing they stay."""
        if self._reserves or (self._each is not None and any(self._each[1:])):
            self.dismiss()

    def prepare(self, size: int) -> None:
        """Those who stay may import what they will need next, one after another: a training has the other CPU. So many
        may be there; not where they reserve CPUs."""
        before = None
        for member in self._members:
            if not member.prepared:
                member.prepared = True
                before = member.actor.prepare.remote(before)
        while self._members and not self._reserves and len(self._members) < size:
            self._members.append(_Member(self._options, True, before))
            before = self._members[-1].answer

    def dismiss(self) -> None:
        """End them: others need what they reserve."""
        for member in self._members:
            member.die()
        self._members = []

    def answers(self, work: UnitWork, size: Callable[[], int]) -> Generator[tuple[UnitResult, float]]:
        """As of `Engine.answers`.

        Args:
            work: the units.
            size: how many actors there may be, at any moment.
        """
        with self._at_work(work.pool):
            yield from _Task(work, self._members, self._options, size).answers()

    def trials(self, trials: Trials) -> None:
        """As of `Engine.trials`: each in one piece, on a CPU."""
        points, names, deaths = trials.points, count(), 0
        shared = [ray.put((trials.make, tuple(trials.args)))]
        with self._at_work(Pool(trials.concurrent, 1.0, 0.0, None)):
            while True:
                while len(self._members) < trials.concurrent:
                    self._members.append(_Member(self._options, False))
                some = self._members[: trials.concurrent]
                for member in [m for m in some if m.up and m.unit is None]:
                    if (asked := points.next(str(name := next(names)))) is not None:
                        member.unit, member.answer = name, member.actor.trial.remote(shared, asked)
                    elif all(m.unit is None for m in some):
                        return
                    else:
                        break
                waited_for = {m.answer: m for m in self._members if m.answer is not None}
                for answer in ray.wait(list(waited_for), timeout=GROW_SECONDS)[0]:
                    member = waited_for[answer]
                    if member.up:
                        self._tried(member, points)
                        continue
                    try:
                        ray.get(answer)
                        member.up, member.answer = True, None
                    except _DIED as e:
                        self._members.remove(member)
                        if (deaths := deaths + 1) > DEATHS:
                            raise ResourceError(f"a worker died while it started ({first_line(e)})") from None

    def _tried(self, member: _Member, points: Points) -> None:
        name, crashed = str(member.unit), ""
        try:
            for found in ray.get(member.answer):
                points.evaluated(name, found)
        except _DIED:
            crashed = "its process died"
            self._members.remove(member)
            member.die()
        except ray.exceptions.RayTaskError as e:
            crashed = f"{type(e.cause).__name__}: {e.cause}"
        member.unit = member.answer = None
        points.end(name, crashed=crashed)

    @contextmanager
    def _at_work(self, pool: Pool) -> Iterator[None]:
        """Members serve such a pool in the block. After it those stay who are idle."""
        each = (pool.cpus, pool.gpus, pool.memory)
        if each != self._each:
            self.dismiss()
            self._each = each
        self._options = _options(pool, self._reserves)
        try:
            yield
        finally:
            waits = self._reserves  # for CPUs, perhaps: a demand that an autoscaler would meet
            for member in [m for m in self._members if m.unit is not None or (waits and not m.up)]:
                self._members.remove(member)
                member.die()
            for member in self._members:
                member.next = None
                member.actor.let_go.remote()


class _Task:
    """One stage's units and the crew at work on them."""

    def __init__(self, work: UnitWork, members: list[_Member], options: Mapping[str, Any], size: Callable[[], int]):
        self._work, self._members, self._options, self._size = work, members, options, size
        self._waiting = deque(work.tables)
        self._left = set(work.tables)
        self._deaths: Counter[int | None] = Counter()
        # in a list: an actor takes it once, not with every unit
        self._stage = [ray.put(replace(work, tables={}))]

    def answers(self) -> Iterator[tuple[UnitResult, float]]:
        size, looked = self._size(), time.monotonic()
        while self._left:
            if time.monotonic() > looked + GROW_SECONDS:
                size, looked = self._size(), time.monotonic()
            while len(self._members) < min(size, len(self._left)):
                self._members.append(_Member(self._options, any(m.up for m in self._members)))
            for member in self._members[:size]:
                if member.up and member.unit is None:
                    self._set_to_work(member)
            asked = {m.answer: m for m in self._members if m.answer is not None}
            ready, _ = ray.wait(list(asked), num_returns=1, timeout=GROW_SECONDS)
            if ready:
                ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
            for answer in ready:
                yield from self._answered(asked[answer])

    def _set_to_work(self, member: _Member) -> None:
        unit, member.next = member.next, None
        if unit is None:
            unit = self._taken()
        if unit is None:
            return
        ahead = None
        if self._work.read is not None and self._waiting:
            member.next = self._waiting.popleft()
            ahead = (member.next, self._work.tables[member.next])
        member.unit = unit
        member.answer = member.actor.do.remote(self._stage, unit, self._work.tables[unit], ahead)

    def _taken(self) -> int | None:
        """The next unit that nobody does; at the end one that another has only read."""
        if self._waiting:
            return self._waiting.popleft()
        for member in self._members:
            if member.next is not None:
                unit, member.next = member.next, None
                return unit
        return None

    def _answered(self, member: _Member) -> Iterator[tuple[UnitResult, float]]:
        try:
            found = ray.get(member.answer)
        except _DIED as e:
            self._dead(member, e)
            return
        member.answer = None
        if not member.up:
            member.up = True
            self._deaths[None] = 0
            return
        member.unit = None
        result, seconds, error = found
        if error is not None:
            raise error_named(*error)
        unit_result = UnitResult.from_json(result)
        self._left.discard(unit_result.unit)
        yield unit_result, seconds

    def _dead(self, member: _Member, error: Exception) -> None:
        """Its units wait again; another takes its place."""
        member.die()
        self._members.remove(member)
        self._waiting.extendleft(unit for unit in (member.next, member.unit) if unit is not None)
        self._deaths[member.unit] += 1
        if self._deaths[member.unit] <= DEATHS:
            return
        some = f"{', '.join(map(str, sorted(self._left)[:5]))}{', …' * (len(self._left) > 5)}"
        stage = self._work.stage
        at = "while it started" if member.unit is None else f"at work on unit {member.unit}"
        raise ResourceError(
            f"{stage}: a worker died {at}, {DEATHS + 1} times over ({first_line(error)}). Of "
            f"{len(self._work.tables):,} units not done are {some}. "
            f"If memory is short, {stage}.workers.memory_gb reserves more; the same command goes on"
        ) from None


def _options(pool: Pool, reserves: bool) -> dict[str, Any]:
    """Of an actor. Ray starts no dead one again: it would wait for its own place, and its units with it."""
    return {
        "num_cpus": pool.cpus if reserves else 0,
        "num_gpus": pool.gpus or None,
        "memory": pool.memory,
        "scheduling_strategy": "SPREAD",
        "max_restarts": 0,
        "max_task_retries": 0,
    }
