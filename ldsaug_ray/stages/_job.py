"""What every stage gets: the settings, the run directory, a console, and what of the cluster it may take."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from ldsaug_ray.config import Config, Workers
from ldsaug_ray.errors import ResourceError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages._session import check_nodes

_ASK_SECONDS = 30.0  # nodes are asked for again then: of another kind, if the first to come had GPUs


@dataclass(frozen=True)
class Job:
    """One invocation: a stage function reads from it and writes through it.

    alone: whether this process keeps other drivers out of the run directory.
    """

    config: Config
    run: RunDir
    console: Console
    verbose: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Pool:
    """Actors of a stage, resolved against the cluster."""

    count: int
    cpus: float
    gpus: float
    memory: int | None  # bytes

    @property
    def threads(self) -> int:
        """Threads of one actor: what it reserves, rounded up."""
        return max(1, math.ceil(self.cpus))

    def text(self) -> str:
        """For the plan."""
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        memory = f", {self.memory / 1e9:g} GB" if self.memory else ""
        return f"{self.count} × ({self.cpus:g} CPU{gpus}{memory})"


def node_resources() -> list[Mapping[str, float]]:
    """CPUs, GPUs and memory of each node of the attached cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def pool_for(job: Job, workers: Workers, stage: str, *, limit: int | None = None) -> Pool:
    """`pool_of` on the attached cluster, once it has what is asked for: an autoscaler is told, and waited for.

    Raises:
        ResourceError: a local Ray has not what is asked for, or a cluster has it not after `ray.wait_minutes`.
        InputError: a node that came sees no run directory.
    """
    minutes = job.config.ray.wait_minutes if "RAY_ADDRESS" in os.environ else 0
    until = time.monotonic() + 60 * minutes
    waited, most = False, 0
    while True:
        nodes = node_resources()
        if len(nodes) > most:  # they come: the limit is on waiting for the next
            most, until = len(nodes), time.monotonic() + 60 * minutes
        try:
            pool = pool_of(workers, stage, nodes, limit=limit)
        except ResourceError as e:
            if not minutes:
                raise
            if time.monotonic() > until:
                raise ResourceError(f"{e} (waited {minutes:g} minutes for more nodes: ray.wait_minutes)") from None
            if not waited:
                text = f"{e}; waiting for nodes, {minutes:g} minutes at most (ray.wait_minutes)"
                job.console.print(text, highlight=False)
            waited = True
            _ask_for(workers, limit, min(_ASK_SECONDS, until - time.monotonic()))
            continue
        if waited:
            check_nodes(job.config)
        return pool


def _ask_for(workers: Workers, limit: int | None, seconds: float) -> None:
    """Let the cluster reserve what the actors will need: its autoscaler then starts nodes, and forgets it if we die."""
    from ray.util.placement_group import placement_group, remove_placement_group

    one = {"CPU": workers.cpus}
    if gpus := _gpus_each(workers, node_resources()):
        one["GPU"] = gpus
    if workers.memory_gb is not None:
        one["memory"] = int(workers.memory_gb * 1e9)
    group = placement_group([one] * _least(workers, limit))
    try:
        group.wait(max(1.0, seconds))
    finally:
        remove_placement_group(group)  # from here on the actors themselves ask


def pool_of(workers: Workers, stage: str, nodes: Sequence[Mapping[str, float]], *, limit: int | None = None) -> Pool:
    """Resolve `auto` and check that the cluster can hold the actors.

    Args:
        workers: the stage's settings.
        stage: its name, for messages.
        nodes: what each node has.
        limit: no more actors than units of work.

    Raises:
        ResourceError: no node has what one actor needs, or all together not what the asked number needs.
    """
    gpus = _gpus_each(workers, nodes)
    memory = None if workers.memory_gb is None else int(workers.memory_gb * 1e9)
    each = {"CPU": workers.cpus, "GPU": gpus, "memory": memory or 0}
    most = sum(math.floor(min(n.get(r, 0.0) / x for r, x in each.items() if x) + 1e-9) for n in nodes)
    need = _least(workers, limit)
    if most < need:
        asked = Pool(need, workers.cpus, gpus, memory).text()
        has = {name: sum(n.get(name, 0.0) for n in nodes) for name in each}
        on = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        raise ResourceError(
            f"{stage}.workers asks for {asked}, but the cluster has {has['CPU']:g} CPUs, {has['GPU']:g} GPUs and "
            f"{has['memory'] / 1e9:.1f} GB{on}; lower {stage}.workers or add nodes"
            + (f" (count={most} fits)" if most else "")
        )
    count = most if workers.count == "auto" else need
    return Pool(max(1, count if limit is None else min(count, limit)), workers.cpus, gpus, memory)


def _gpus_each(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> float:
    """GPUs of one actor: with auto one, where any node has any."""
    if workers.gpus == "auto":
        return 1.0 if any(n.get("GPU") for n in nodes) else 0.0
    return float(workers.gpus)


def _least(workers: Workers, limit: int | None) -> int:
    """Actors that there must be."""
    need = 1 if workers.count == "auto" else int(workers.count)
    return need if limit is None else max(1, min(need, limit))


def limit_threads(threads: int) -> None:
    """Set the thread counts of the BLAS and, where the worker has imported it, of torch, from what it reserves."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees: tensors of every training step then come from pages it has, and
    not from the kernel, which clears each page anew (measured: 13 % of a step at 32 px). Memory stays at its peak.

    Only glibc knows the setting; elsewhere nothing happens. Who sets MALLOC_TRIM_THRESHOLD_ has chosen.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_threshold, 32 * 2**20)  # the most glibc takes
