"""What one stage asks of its engine."""

from __future__ import annotations

from pydantic import field_validator

from ldsaug_ray.config.base import Auto, Positive, Section, how, since


class Workers(Section):
    """What one stage asks of Ray. The defaults fit a laptop and a GPU node."""

    count: Positive | Auto = how("auto", description="workers; auto: one per GPU share, or per CPU share without GPUs")
    cpus: float = how(1.0, gt=0, description="CPUs reserved per worker; also its thread count, rounded up")
    gpus: float | Auto = how("auto", description="GPUs per worker, or a fraction; auto: 1 where the cluster has any")
    memory_gb: float | None = how(None, gt=0, description="memory reserved per worker, GB; none: not reserved")

    @field_validator("gpus")
    @classmethod
    def _gpus(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and (value < 0 or (value > 1 and value != int(value))):
            raise ValueError("must be 0, a fraction below 1, or a whole number")
        return value


class CpuWorkers(Workers):
    """Workers of a stage that computes on CPUs alone."""

    gpus: float | Auto = how(0.0, description="GPUs per worker; this stage has no use for one")


class Ranks(Workers):
    """Workers of a training. Their number changes the result: each draws noise of its own."""

    count: Positive | Auto = since("auto", description="ranks; auto: one per GPU that can share the batch, else one")


class ScoreWorkers(Workers):
    """Workers of the density engine, which uses a GPU when told to."""

    gpus: float = how(0.0, description="GPUs per worker; with any the density is computed there, by Triton")
