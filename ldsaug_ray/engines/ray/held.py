"""Objects in Ray's store and in actors: what is shared, what is held where, and tasks over shared ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray

from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.engines.threads import limit_threads


def fetched(argument: Any) -> Any:
    """What an object reference, or a list of them, stands for; anything else as it is."""
    refs = argument if isinstance(argument, list) else [argument]
    return ray.get(argument) if refs and all(isinstance(ref, ray.ObjectRef) for ref in refs) else argument


class Held:
    """Actors that hold an object each."""

    def __init__(self, actors: Sequence[Any]):
        self._actors = actors

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """All at once; the arguments are sent once to each node."""
        sent = [ray.put(argument) for argument in arguments]
        return ray.get([actor.ask.remote(method, *sent) for actor in self._actors])


class _Holder:
    """An actor with one object, which keeps copies of its own of the arrays that it was made from."""

    def __init__(self, make: Callable[..., Any], arguments: Sequence[Any], threads: int):
        found = map(fetched, arguments)
        self._held = make(*(a.copy() if isinstance(a, np.ndarray) else a for a in found))
        limit_threads(threads)

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self._held, method)(*arguments)


@contextmanager
def held(make: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], pool: Pool, threads: int) -> Iterator[Held]:
    options: dict[str, Any] = {
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus or None,
        "memory": pool.memory,
        "scheduling_strategy": "SPREAD",
        "max_restarts": -1,
        "max_task_retries": -1,
    }
    actor: Any = ray.remote(**options)(_Holder)
    actors = [actor.remote(make, given, threads) for given in arguments]
    try:
        yield Held(actors)
    finally:
        for holder in actors:
            ray.kill(holder)


def each(function: Callable[..., Any], shared: Any, items: Sequence[Any]) -> Iterator[Any]:
    task = ray.remote(_limited)
    for found in [task.remote(function, shared, item) for item in items]:
        yield ray.get(found)


def _limited(function: Callable[..., Any], shared: Any, item: Any) -> Any:
    limit_threads(1)
    return function(shared, item)
