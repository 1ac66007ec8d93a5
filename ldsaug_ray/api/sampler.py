"""`LatentSampler`: over-sampling of small classes by dense interpolants, for pipelines of imbalanced-learn."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from ldsaug_ray.api.augment import augment
from ldsaug_ray.errors import ConfigError, LdsaugError, ResourceError

try:
    from imblearn.over_sampling.base import BaseOverSampler
except ModuleNotFoundError as e:
    raise ResourceError("LatentSampler needs imbalanced-learn: pip install 'ldsaug_ray[imbalanced]'") from e


class LatentSampler(BaseOverSampler):
    """Add to each class the densest of the interpolants between its own members: SMOTE that asks for density.

    Pairs, bandwidth and density are those of `augment` on the members of a class, so a candidate has its parents'
    label. Of a class that needs m more, m / keep candidates are scored and the m that the rules put first are taken.

    Args:
        sampling_strategy: which classes get how many, as of imbalanced-learn's over-samplers: "auto" (all as large as
            the largest), "minority", "all", a dict of class -> size, a ratio of two classes, or a function of y.
        sigma: bandwidth, as of `augment`.
        keep: share of the candidates that is taken, above 0, at most 1 (1: unfiltered interpolants).
        balance: none, "parent", or "cluster": within which groups the densest are taken.
        random_state: seed of the candidates.
        settings: further settings of `score` and `select`, as of `augment`: {"exclude_parents": True}.

    Attributes:
        sampling_strategy_: class -> how many were added. parents_: int64[M, 2], rows of X that the new rows lie
        between. alpha_: float64[M]. log_lds_: float64[M], within the class.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(60, 4)), np.repeat([0, 1], [45, 15])
    >>> sampler = LatentSampler(random_state=0)
    >>> X_new, y_new = sampler.fit_resample(X, y)
    >>> np.bincount(y_new).tolist(), sampler.parents_.shape
    ([45, 45], (30, 2))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "sigma": "no_validation",
        "keep": [Interval(Real, 0, 1, closed="right")],
        "balance": [str, None],
        "settings": [dict, None],
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        sigma: Any = "norm/5",
        keep: float = 0.2,
        balance: str | None = None,
        random_state: Any = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.sigma = sigma
        self.keep = keep
        self.balance = balance
        self.random_state = random_state
        self.settings = settings

    def _fit_resample(self, X: Any, y: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
        if issparse(X):  # interpolants are not, but what came so goes so
            dense, more = self._fit_resample(X.toarray(), y)
            return type(X)(dense), more
        if own := sorted({"n", "keep", "sigma", "balance", "seed"} & {*(self.settings or {})}):
            raise ConfigError(f"settings: {', '.join(own)}: LatentSampler gives it itself, by its own arguments")
        given = self.random_state
        seed = given if isinstance(given, Integral) else check_random_state(given).randint(2**31)
        new, labels, parents = [X], [y], [np.empty((0, 2), np.int64)]
        alpha, log_lds = [np.empty(0)], [np.empty(0)]
        for number, (label, count) in enumerate(sorted(self.sampling_strategy_.items(), key=lambda item: str(item[0]))):
            if not count:
                continue
            rows = np.flatnonzero(y == label)
            if len(rows) < 2:
                raise ValueError(f"y: class {label} has {len(rows)} member; interpolants need at least 2")
            n = math.ceil(count / self.keep)
            try:
                found = augment(
                    X[rows],
                    n=n,
                    keep=count,
                    sigma=self.sigma,
                    balance=self.balance,
                    seed=int(seed) + number,
                    **(self.settings or {}),
                )
            except LdsaugError as e:
                raise type(e)(f"y: class {label} of {len(rows)} members: {e}") from None
            if len(found) != count:
                raise ValueError(f"settings: {count} more of class {label} are needed, the rules keep {len(found)}")
            new.append(found.z.astype(X.dtype))
            labels.append(np.full(count, label, y.dtype))
            parents.append(rows[found.parents])
            alpha.append(found.alpha)
            log_lds.append(found.log_lds)
        self.parents_ = np.concatenate(parents)
        self.alpha_, self.log_lds_ = np.concatenate(alpha), np.concatenate(log_lds)
        return np.concatenate(new), np.concatenate(labels)
