"""What images of A weigh in the loss: a power of their LDS."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.errors import ConfigError, InputError


def lds_weights(log_lds: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """LDS^power divided by its mean: float[M] log LDS -> float64[M] with mean 1; all ones for power 0.

    In log space, since LDS itself may be below the smallest float. A weight may still come
    out as 0 where it is 10^308 times below the largest.

    Raises InputError for another shape or scores that are not finite, ConfigError for a power that is negative or not
    finite.
    """
    logs = np.asarray(log_lds, np.float64)
    if logs.ndim != 1:
        raise InputError(f"log LDS must be float[M]; found shape {list(logs.shape)}")
    if not math.isfinite(power) or power < 0:
        raise ConfigError(f"finetune.lds_weight must be a finite number, at least 0; found {power}")
    bad = ~np.isfinite(logs)
    if bad.any():
        raise InputError(
            f"the log LDS of {int(bad.sum())} of {len(logs)} candidates is not finite, first in row "
            f"{int(np.argmax(bad))}; score again"
        )
    if not len(logs):
        return logs
    relative = _relative(logs, power)
    return np.asarray(relative / relative.mean())


def log_mean_weight(log_lds: NDArray[np.float64], power: float) -> float:
    """log of the mean of LDS^power, float[M] log LDS, M > 0: exp(power · log LDS − this) is what `lds_weights` gives.

    For parts of A that are weighed one at a time.
    """
    return float(power * log_lds.max() + math.log(_relative(log_lds, power).mean()))


def _relative(logs: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """(LDS / largest LDS)^power."""
    with np.errstate(over="ignore"):  # a product below -1e308 is a weight of 0
        return np.exp(power * (logs - logs.max()))
