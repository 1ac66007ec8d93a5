"""Section `ray`: how to reach or start Ray."""

from __future__ import annotations

from pydantic import Field

from ldsaug_ray.config.base import Positive, Section


class Ray(Section):
    """How to reach or start Ray. RAY_ADDRESS, where set, wins: the run attaches to that cluster."""

    num_cpus: Positive | None = Field(None, description="CPUs of the local Ray; none: all. Not for an existing cluster")
    num_gpus: int | None = Field(
        None, ge=0, description="GPUs of the local Ray; none: all. Not for an existing cluster"
    )
    object_store_gb: float | None = Field(
        None, ge=0.1, description="object store of the local Ray, GB; none: Ray's rule"
    )
    wait_minutes: float = Field(
        10, ge=0, description="on a cluster: how long to wait for the nodes that a stage asks for, before giving up"
    )

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of those that are given of the limits of a local Ray."""
        return tuple(n for n in ("num_cpus", "num_gpus", "object_store_gb") if getattr(self, n) is not None)
