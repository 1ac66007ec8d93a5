"""What there is to work with, and what of it a stage gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ldsaug_ray.config import Workers
from ldsaug_ray.errors import ResourceError

Node = Mapping[str, float]  # CPU, GPU, memory and object_store_memory of a machine; what it has not may be left out


@dataclass(frozen=True)
class Pool:
    """Workers of a stage, resolved against what there is."""

    count: int
    cpus: float
    gpus: float
    memory: int | None  # bytes
    grows: bool = False  # to more workers, where nodes come while it works

    @property
    def threads(self) -> int:
        """Threads of one worker: what it reserves, rounded up."""
        return max(1, math.ceil(self.cpus))

    def text(self) -> str:
        """For the plan."""
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        memory = f", {self.memory / 1e9:g} GB" if self.memory else ""
        return f"{self.count} × ({self.cpus:g} CPU{gpus}{memory})"


def pool_of(workers: Workers, stage: str, nodes: Sequence[Node], *, limit: int | None = None) -> Pool:
    """Resolve `auto` and check that the nodes can hold the workers.

    Args:
        limit: no more workers than units of work.

    Raises:
        ResourceError: no node has what one worker needs, or all together not what the asked number needs.
    """
    gpus = gpus_each(workers, nodes)
    memory = None if workers.memory_gb is None else int(workers.memory_gb * 1e9)
    auto, need = workers.count == "auto", least(workers, limit)
    pool = Pool(need, workers.cpus, gpus, memory, grows=auto)
    most = fitting(pool, nodes)
    if most < need:
        asked = pool.text()
        has = {name: sum(n.get(name, 0.0) for n in nodes) for name in ("CPU", "GPU", "memory")}
        on = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        raise ResourceError(
            f"{stage}.workers asks for {asked}, but the cluster has {has['CPU']:g} CPUs, {has['GPU']:g} GPUs and "
            f"{has['memory'] / 1e9:.1f} GB{on}; lower {stage}.workers or add nodes"
            + (f" (count={most} fits)" if most else "")
        )
    count = most if auto else need
    return replace(pool, count=max(1, count if limit is None else min(count, limit)))


def fitting(pool: Pool, nodes: Sequence[Node]) -> int:
    """Workers such as the pool's that fit on the nodes: of those that reserve nothing, as many as it has."""
    each = {"CPU": pool.cpus, "GPU": pool.gpus, "memory": pool.memory or 0}
    if not any(each.values()):
        return pool.count
    return sum(math.floor(min(n.get(r, 0.0) / x for r, x in each.items() if x) + 1e-9) for n in nodes)


def gpus_each(workers: Workers, nodes: Sequence[Node]) -> float:
    """GPUs of one worker: with auto one, where any node has any."""
    if workers.gpus == "auto":
        return 1.0 if any(n.get("GPU") for n in nodes) else 0.0
    return float(workers.gpus)


def least(workers: Workers, limit: int | None) -> int:
    """Workers that there must be."""
    need = 1 if workers.count == "auto" else int(workers.count)
    return need if limit is None else max(1, min(need, limit))
